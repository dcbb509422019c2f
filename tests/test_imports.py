"""Imports point one way, `import nnjax` is light, and the top level of the repository stays as it is."""

import ast
import graphlib
import inspect
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import jaxtyping
import pytest
from jax import Array
from jaxtyping import Float
from shape_checker import check_shapes

import nnjax

PACKAGE = Path(nnjax.__file__).parent
ROOT = PACKAGE.parent

# A part may import the parts of all lines above its own, and those that SAME_LINE lists for it. A part in ONLY may
# import nothing else.
LAYERS = [
    ["types", "checks", "_reproducible", "_missing_name", "_version"],
    ["_targets"],
    ["nn", "losses", "metrics", "optim", "data", "storage", "optcheck"],
    ["uncertainty", "debug"],
    ["train"],
    ["interop", "plot", "recipes"],
    ["lecture"],
    ["cli", "pytest_plugin"],
    ["__main__"],
]
SAME_LINE = {"metrics": {"losses"}, "data": {"storage"}}
ONLY = {"optcheck": {"types", "checks"}, "storage": {"types", "checks"}, "pytest_plugin": {"optcheck"}}
NOT_PARTS = {
    "types",
    "checks",
    "_reproducible",
    "_missing_name",
    "_version",
    "_targets",
    "recipes",
    "lecture",
    "cli",
    "pytest_plugin",
    "__main__",
}  # modules that `dir(nnjax)` does not list
HEAVY = ["matplotlib", "rich", "torch", "pandas", "typer", "chex", "jaxtyping", "safetensors", "sklearn", "scipy.stats"]


def module_name(path):
    parts = ["nnjax", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(name):
    """The modules of nnjax that a module imports anywhere in it, function bodies and TYPE_CHECKING included."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "nnjax")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import in line {node.lineno}"
            if node.module.split(".")[0] == "nnjax":
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    yield submodule if submodule in MODULES else node.module


def part(name):
    """nnjax.nn.dense -> nn"""
    return name.split(".")[1] if "." in name else "nnjax"


RANK = {name: line for line, names in enumerate(LAYERS) for name in names}


def may_import(importer, target):
    if importer in (target, "nnjax"):
        return True
    if importer in ONLY:
        return target in ONLY[importer]
    return RANK[target] < RANK[importer] or target in SAME_LINE.get(importer, ())


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name):
    wrong = {other for other in imported(name) if not may_import(part(name), part(other))}
    assert not wrong, f"{name} imports {sorted(wrong)}"


def test_every_part_has_its_place():
    assert {part(name) for name in MODULES} - {"nnjax"} <= RANK.keys()


def test_dir_lists_the_parts():
    parts = {part(name) for name in MODULES} - {"nnjax"} - NOT_PARTS
    assert set(dir(nnjax)) == parts | {"Data", "Layer", "TrainState", "__version__", "load", "reproducible", "save"}
    assert all(inspect.ismodule(getattr(nnjax, name)) for name in parts)


def test_unknown_attribute_lists_the_parts():
    with pytest.raises(AttributeError, match=r"module 'nnjax' has no attribute 'layers'; it has .*\bnn, .*\bplot, "):
        nnjax.layers  # noqa: B018
    assert not hasattr(nnjax, "layers")


def test_modules_do_not_import_each_other_in_a_circle():
    graph = {name: {other for other in imported(name) if other != name} for name in MODULES}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which shows the circle
    assert sum(map(len, graph.values())) > 50


def test_import_of_nnjax_is_light():
    program = f"""
import sys
import jax, optax
before = set(sys.modules)
import nnjax
added = set(sys.modules) - before
print(*[name for name in {HEAVY} if name in added])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == ""


def test_import_of_nnjax_starts_no_backend():
    program = "import nnjax; from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "False"


def test_plot_without_matplotlib_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"nnjax.plot needs matplotlib: pip install 'nnjax\[cli\]'"):
        nnjax.plot.curves([{"loss": 1.0}])


def test_top_level_of_the_repository():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT)
    top = {path.split("/")[0] for path in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= {
        "pyproject.toml", "README.md", "LICENSE", "nnjax", "benchmarks", "tests",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["losses", "metrics", "data._shuffle", "uncertainty.curves", "uncertainty.ensemble"])
def test_annotated_shapes_are_checked(name):
    """By the import hook in conftest.py."""
    module = sys.modules[f"nnjax.{name}"]
    functions = [f for f in vars(module).values() if inspect.isfunction(f) and f.__module__ == module.__name__]
    assert functions
    assert all(hasattr(function, "__wrapped__") for function in functions)


def test_a_wrong_shape_is_an_error():
    checked = jaxtyping.jaxtyped(typechecker=check_shapes)(losses_of_a_batch)
    assert checked(jnp.ones((3, 2))).shape == (3,)
    with pytest.raises(jaxtyping.TypeCheckError):
        checked(jnp.ones((3, 2, 2)))


def losses_of_a_batch(x: Array) -> Float[Array, " batch"]:
    return x.sum(-1)
