"""Detect functions that keep state outside their arguments."""

import copy
import dis
import inspect
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any

from nnjax.optcheck.calling.kinds import NotAnOptimizerError


def keeps_state(function: Callable[..., Any]) -> bool:
    """Return True if a function assigns nonlocal or global variables."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    return any(
        step.opname == "STORE_GLOBAL" or (step.opname == "STORE_DEREF" and step.argval in code.co_freevars)
        for step in dis.get_instructions(code)
    )


def has_closure_state(function: Callable[..., Any]) -> bool:
    """Return True if a function could keep state in its closure: in a dict, list or set, or in a nonlocal variable."""
    cells = getattr(function, "__closure__", None) or ()
    return keeps_state(function) or any(isinstance(_content(cell), (dict, list, set)) for cell in cells)


def copies(*functions: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """Return copies of functions whose closures are copied too, so that calls do not change the originals.

    Functions that share a variable share its copy.
    """
    memo: dict[int, Any] = {}
    return tuple(_copy(function, memo) for function in functions)


def _copy(value: Any, memo: dict[int, Any]) -> Any:
    if isinstance(value, (dict, list, set)):
        try:
            return copy.deepcopy(value, memo)
        except Exception:  # it contains objects that cannot be copied, such as compiled functions
            return value
    if not inspect.isfunction(value) or value.__closure__ is None:
        return value
    if id(value) in memo:
        return memo[id(value)]
    cells = []
    for cell in value.__closure__:
        new = memo.get(id(cell))
        if new is None:
            new = memo[id(cell)] = CellType()
            if (content := _content(cell)) is not _EMPTY:
                new.cell_contents = _copy(content, memo)
        cells.append(new)
    copied = FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, tuple(cells))
    copied.__kwdefaults__, copied.__qualname__ = value.__kwdefaults__, value.__qualname__
    return memo.setdefault(id(value), copied)


_EMPTY = object()


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the variable has no value yet
        return _EMPTY


def uses_id(function: Callable[..., Any]) -> bool:
    """Return True if a function, or a method of the same object, calls `id`."""
    owner = getattr(function, "__self__", None)
    methods = {} if owner is None else vars(type(owner))
    # special methods are skipped, because the `__repr__` of dataclasses calls `id`
    names = [name for name in methods if name in ("__call__", "__init__") or not name.startswith("__")]
    functions = [function] if owner is None else [methods[name] for name in names if inspect.isfunction(methods[name])]
    codes = [getattr(f, "__code__", None) for f in functions]
    for code in codes:  # grows while nested functions are found
        codes += [] if code is None else [constant for constant in code.co_consts if inspect.iscode(constant)]
    return any(code is not None and "id" in code.co_names for code in codes)


def lost_state_error(name: str) -> NotAnOptimizerError:
    """Return the error for an optimizer that stores its state under `id(array)` and returns new arrays."""
    return NotAnOptimizerError(
        f"optcheck: {name} stores its state under id(array) but returns new arrays, so the state is lost at every "
        "step; change the arrays in place (p -= …), or store the state under an index:\n"
        "  for i, (p, g) in enumerate(zip(params, grads)):\n"
        "      m = self.m.get(i, 0.0)\n"
        "      ...  # the update of p, and self.m[i] = m"
    )


def hidden_state_error(name: str) -> NotAnOptimizerError:
    """Return the error for a function that keeps state outside its arguments, with code that adapts it."""
    function = name.rpartition(".")[2]
    return NotAnOptimizerError(
        f"optcheck: {name} keeps state outside its arguments or draws random numbers, so runs would differ; pass a "
        "function that makes it:\n"
        "  def make():\n"
        f"      ...  # define {function} and its state here\n"
        f"      return {function}"
    )
