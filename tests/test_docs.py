"""Every example in a docstring or in the README runs, and every public function has both."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nnjax

ROOT = Path(nnjax.__file__).parents[1]
MODULES = ["nnjax", *(m.name for m in pkgutil.walk_packages(nnjax.__path__, "nnjax."))]
WITH_EXAMPLES = ["nn", "losses", "metrics", "optim", "data", "uncertainty"]


def _globals():
    names = ["nn", "optim", "losses", "metrics", "data", "train", "uncertainty"]
    found = {name: importlib.import_module(f"nnjax.{name}") for name in names}
    return {"jax": jax, "jnp": jnp, "np": np, "optax": optax, "nnjax": nnjax, **found}


def _examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in MODULES:
        module = importlib.import_module(name)
        yield from (test for test in finder.find(module, name, module) if test.examples)


def _public(name):
    """(name, object) of a module's `__all__`, or of all it defines without an underscore."""
    module = importlib.import_module(f"nnjax.{name}")
    own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    names = getattr(module, "__all__", [key for key in own if not key.startswith("_")])
    return [(f"{name}.{key}", getattr(module, key)) for key in names]


PUBLIC = [
    pair
    for name in ("nn", "losses", "metrics", "optim", "data", "train", "uncertainty")
    for pair in _public(name)
    if callable(pair[1]) and not inspect.ismodule(pair[1])
]


@pytest.mark.parametrize("example", list(_examples()), ids=lambda test: test.name)
def test_docstring_example_runs(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example.globs = {**example.globs, **_globals()}
    said = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    result = runner.run(example, out=said.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(said)


@pytest.mark.parametrize(("name", "thing"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_public_name_has_a_docstring_of_its_own(name, thing):
    doc = thing.__doc__ or ""
    assert doc.strip()
    assert not doc.startswith(f"{getattr(thing, '__name__', '')}("), "the one that NamedTuple makes"


EXAMPLES_WANTED = [
    (name, thing) for name, thing in PUBLIC if name.split(".")[0] in WITH_EXAMPLES and inspect.isfunction(thing)
]


@pytest.mark.parametrize(("name", "function"), EXAMPLES_WANTED, ids=[name for name, _ in EXAMPLES_WANTED])
def test_public_function_has_an_example(name, function):
    assert doctest.DocTestParser().get_examples(function.__doc__ or ""), f"{name} has no example"


def test_the_checks_above_see_the_library():
    names = {name for name, _ in EXAMPLES_WANTED}
    assert {"nn.dense", "losses.cross_entropy", "metrics.accuracy", "optim.adam", "data.batch_indices"} <= names
    assert len(list(_examples())) >= len(names)


def readme_blocks():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_blocks_of_the_readme_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "readme"}
    for number, block in enumerate(readme_blocks(), 1):
        with jax.numpy_dtype_promotion("standard"):  # as a reader has it
            exec(compile(block, f"README.md, block {number}", "exec"), namespace)
