"""Detect functions that keep state outside their arguments."""

import dis
from collections.abc import Callable
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
