"""Find the optimizers in a module or file, and name the nearest library rule for each."""

import importlib
import importlib.util
import inspect
import json
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax

from nnjax.optcheck.calling.adapter import Adapter
from nnjax.optcheck.calling.factories import build
from nnjax.optcheck.calling.kinds import METHODS, NotAnOptimizerError
from nnjax.optcheck.calling.names import NUMBERS, arguments_of
from nnjax.optcheck.report.github import annotation
from nnjax.optcheck.rules.families import equations
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES
from nnjax.optcheck.rules.update_rule import Formula, HyperParams
from nnjax.optcheck.search.budget import Budget
from nnjax.optcheck.search.by_dimensions import identify_optimizer
from nnjax.optcheck.search.causes import Cause, causes_of
from nnjax.optcheck.trace.deadline import Deadline

RATE = {"learning_rate": 1e-3}


class Finding(NamedTuple):
    """The result for one optimizer of a module."""

    name: str
    line: int  # line of its definition; 1 if unknown, as for instances
    called: str = ""  # description of the call; "" for standard kinds
    rule: str = ""  # the nearest library rule; "" if the formula is unknown or if there is a problem
    causes: tuple[Cause, ...] = ()  # differences from that rule, except in hyper-parameters
    equations: tuple[str, ...] = ()
    numbers: str = ""  # the hyper-parameters, such as "λ = 0.001"
    problem: str = ""  # the error that ended the check; "" if there was none
    file: str = ""  # the file that defines it; "" if unknown

    @property
    def verdict(self) -> str:
        """Return the result in a few words."""
        if self.problem:
            return self.problem
        if not self.rule:
            return "unknown rule"
        causes = f", but {', '.join(cause.id for cause in self.causes)}" if self.causes else ""
        return f"{self.rule}{causes}; {self.numbers}"


class Audit(NamedTuple):
    """The objects of a module that look like optimizers. `str` formats them as a table."""

    place: str
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """Return 2 if any optimizer is unknown or fails to run, 1 if any differs from all library rules, else 0."""
        if any(not finding.rule for finding in self.findings):
            return 2
        return int(any(finding.causes for finding in self.findings))

    def __str__(self) -> str:
        if not self.findings:
            return f"{self.place}: nothing looks like an optimizer"
        rows = [(finding.name, f"line {finding.line}", finding.verdict) for finding in self.findings]
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows)

    def to_json(self) -> str:
        """Return the findings as JSON text."""
        rows = [
            finding._asdict() | {"causes": [cause.id for cause in finding.causes], "verdict": finding.verdict}
            for finding in self.findings
        ]
        return json.dumps({"schema": "nnjax-optcheck-audit-1", "place": self.place, "findings": rows}, indent=2)

    def github(self) -> str:
        """Return a line with a GitHub Actions annotation for each optimizer that does not follow a library rule."""
        return "\n".join(
            annotation("warning", finding.file or self.place, finding.line, f"{finding.name}: {finding.verdict}")
            for finding in self.findings
            if finding.causes or not finding.rule
        )


def audit(place: str | Path | ModuleType, *, max_fits: int = 300) -> Audit:
    """Find all objects that look like optimizers in a module or file, and compare each with the nearest library rule.

    Imported functions and classes, base classes, and names that begin with an underscore, are skipped. Errors of an
    optimizer become the `problem` of its finding.

    Args:
      place: a module or package, its name, or the path of a file or folder.
      max_fits: maximum number of update rules to fit for each optimizer.

    Raises:
      ImportError, FileNotFoundError: if the module or file does not exist.
      Exception: any exception that the module raises when it is imported.

    >>> from nnjax import optcheck
    >>> [finding.name for finding in optcheck.audit("nnjax.optim._momentum").findings]
    ['momentum', 'nesterov']
    """
    if not isinstance(place, ModuleType) and Path(place).is_dir() and not (Path(place) / "__init__.py").is_file():
        modules = [import_place(file) for file in sorted(Path(place).rglob("*.py"))]
        title, prefixes = str(place), [f"{Path(str(module.__file__)).stem}." for module in modules]
    else:
        module = place if isinstance(place, ModuleType) else import_place(place)
        modules = [module, *_submodules(module)]
        title = str(getattr(module, "__file__", None) or module.__name__)
        prefixes = [f"{part.__name__}.".removeprefix(f"{module.__name__}.") for part in modules]
    findings = []
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for module, prefix in zip(modules, prefixes, strict=True):
            for name, member in list(vars(module).items()):
                if not name.startswith("_") and _looks_like_optimizer(member, module):
                    finding = _identify(f"{prefix}{name}", member, max_fits)
                    if finding is not None:
                        findings.append(finding._replace(file=str(module.__file__ or "")))
    return Audit(title, tuple(findings))


def _submodules(module: ModuleType) -> list[ModuleType]:
    """Import and return the submodules of a package, except tests and scripts."""
    paths = getattr(module, "__path__", None)
    if paths is None:
        return []
    names = [entry.name for entry in pkgutil.walk_packages(paths, f"{module.__name__}.")]
    return [importlib.import_module(name) for name in names if not {"__main__", "tests"} & set(name.split("."))]


def import_place(place: str | Path) -> ModuleType:
    """Import a module by its name, or a file or package by its path.

    Files get a module name that does not hide a library.
    """
    if Path(place).is_dir():
        sys.path.insert(0, str(Path(place).resolve().parent))
        return importlib.import_module(Path(place).resolve().name)
    if not str(place).endswith(".py"):
        sys.path.insert(0, "")  # finds modules in the current folder, as `python -m` does
        return importlib.import_module(str(place))
    source = Path(place)
    if not source.is_file():
        raise FileNotFoundError(f"optcheck: there is no file {place}")
    module_name = f"optcheck_{source.stem}"  # the prefix prevents a file jax.py from replacing jax
    sys.path.insert(0, str(source.resolve().parent))  # lets the file import modules from its folder
    spec = importlib.util.spec_from_file_location(module_name, source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look up the module of their class
    spec.loader.exec_module(module)
    return module


def _looks_like_optimizer(member: Any, module: ModuleType) -> bool:
    """Return True if the arguments or methods look like an optimizer's. Functions and classes must be from `module`."""
    if isinstance(member, tuple):
        return len(member) in (2, 3) and all(map(callable, member))
    if inspect.ismodule(member) or not (callable(member) or hasattr(member, "__dict__")):
        return False
    return _has_roles(member if inspect.isclass(member) else inspect.unwrap(member), module)  # unwraps jax.jit


def _has_roles(member: Any, module: ModuleType) -> bool:
    if (inspect.isfunction(member) or inspect.isclass(member)) and member.__module__ != module.__name__:
        return False
    if not inspect.isfunction(member):
        methods = [getattr(member, name, None) for name in METHODS[:-1]]
        functions = [method for method in methods if callable(method)]
        call = vars(member).get("__call__") if inspect.isclass(member) else None
        roles = [_roles(function) for function in (*functions, *([call] if call else []))]
        takes_gradients = any({"grads", "pairs", "layer", "layers"} & role for role in roles)
        return takes_gradients or (bool(functions) and inspect.isclass(member) and _holds_parameters(member))
    found = _roles(member)
    if inspect.isgeneratorfunction(member):
        return bool({"params", "gradient"} & found)
    first = next(iter(inspect.signature(member).parameters), "").lower()
    return "pairs" in found or first in NUMBERS or ("grads" in found and bool({"params", "state"} & found))


def _holds_parameters(cls: type) -> bool:
    """Return True if a class is created from parameters, a model or layers, or if its arguments are unknown."""
    arguments = arguments_of(cls)
    return arguments is None or bool({"params", "layers"} & {argument.role for argument in arguments})


def _roles(function: Any) -> set[str]:
    return {argument.role for argument in arguments_of(function) or ()}


def _identify(name: str, member: Any, max_fits: int) -> Finding | None:
    """Return a finding with the rule of an optimizer or, if that fails, with the problem.

    Return None for a class that raises NotImplementedError.
    """
    source = member if inspect.isclass(member) else inspect.unwrap(member)
    line = inspect.getsourcelines(source)[1] if inspect.isfunction(source) or inspect.isclass(source) else 1
    try:
        adapter = _adapter(member)
        parts = identify_optimizer(adapter, Budget(max_fits), Deadline(None))
    except Exception as error:  # the optimizer's code may raise any exception
        if isinstance(error, NotImplementedError) and inspect.isclass(member):
            return None
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return Finding(name, line, problem=first.removesuffix(" adapt it:").rstrip(";:").removeprefix("optcheck: "))
    if not parts:
        return Finding(name, line, adapter.called)
    rules: list[str] = []
    causes: list[Cause] = []
    lines: list[str] = []
    numbers: list[str] = []
    for leaves, formula in parts:
        nearest = min(LIBRARY_RULES, key=lambda library: len(_causes(library, formula)))
        where = f"{leaves}: " if leaves else ""
        rules.append(f"{where}{nearest}")
        causes += _causes(nearest, formula)
        lines += equations(formula)
        numbers.append(f"{where}{equations(formula)[-1]}")
    return Finding(name, line, adapter.called, ", ".join(rules), tuple(causes), tuple(lines), "; ".join(numbers))


def _adapter(member: Any) -> Adapter:
    """Adapt an optimizer, or call a factory with its defaults or a learning rate and adapt the result."""
    try:
        adapter = build(member)
    except NotAnOptimizerError:
        adapter = build(member, RATE)
    if isinstance(adapter, Formula):
        raise NotAnOptimizerError("this is a formula, not an optimizer")
    return adapter


def _causes(library: str, formula: Formula) -> tuple[Cause, ...]:
    """Return the choices in which a formula differs from a library rule, ignoring hyper-parameters."""
    rule = LIBRARY_RULES[library]
    chosen = {name: getattr(formula.hyper, name) for name in HyperParams._fields}
    return causes_of(rule._replace(hyper=HyperParams(**chosen)), formula)
