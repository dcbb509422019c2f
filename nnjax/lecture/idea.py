"""Read the ideas of the lecture from their files."""

import inspect
from collections.abc import Callable, Sequence
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

# Imports for the code of all ideas; the page shows them once
PREAMBLE = """\
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from nnjax import data, debug, losses, metrics, nn, optim, train, uncertainty
"""
LONGEST = 12  # largest number of elements of an array in a table


class Idea(NamedTuple):
    """The text of an idea, the function that runs it, and the function that draws it."""

    name: str  # such as "softmax"
    title: str  # the first line of the file
    text: str  # three sentences
    formula: str  # one or more lines
    caption: str  # explains the picture
    functions: tuple[Callable[..., Any], ...]  # the functions that `run` calls, then `run`
    draw: Callable[..., Sequence[Any]]  # (second result of `run`) -> axes or figures

    @property
    def run(self) -> Callable[[], tuple[dict[str, Any], Any]]:
        """Return the function that runs the idea: () -> (numbers, input of `draw`)."""
        return self.functions[-1]


def read_idea(module: ModuleType) -> Idea:
    """Read an idea from its file: its docstring, its caption, `run` and `draw`.

    `Idea.functions` holds the functions that the file defines or imports from the file of
    another idea, except `draw` and its helpers, whose names begin with an underscore.
    """
    title, text, *formula = inspect.cleandoc(module.__doc__ or "").split("\n\n")
    called = [
        value
        for name, value in vars(module).items()
        if isinstance(value, FunctionType)
        and hasattr(inspect.getmodule(value), "CAPTION")
        and name not in ("run", "draw")
        and not name.startswith("_")
    ]
    return Idea(
        name=_idea_name(module.__name__),
        title=title,
        text=" ".join(text.split()),
        formula=inspect.cleandoc("\n".join(formula)),
        caption=module.CAPTION,
        functions=(*called, module.run),
        draw=module.draw,
    )


def code_of(idea: Idea, before: Sequence[Idea] = ()) -> tuple[str, dict[str, str]]:
    """Return the code of an idea, without the functions that earlier ideas have shown.

    Returns:
      The source code, and a dictionary from the names of omitted functions to the ideas
      that define them.
    """
    known = {function for other in before for function in other.functions}
    sources = [inspect.getsource(f).rstrip() for f in idea.functions if f not in known]
    lacking = {f.__name__: _idea_name(f.__module__) for f in idea.functions if f in known}
    return "\n\n\n".join(sources), lacking


def format_number(value: object) -> str:
    """Format a string, a number, or a list or array of numbers as text for a table.

    Raises:
      ValueError: if there are more than 12 numbers.
    """
    if isinstance(value, str):
        return value
    parts = [np.asarray(part) for part in value] if isinstance(value, list) else value
    array = np.asarray(parts).reshape(-1)
    if array.size > LONGEST:
        raise ValueError(
            f"a row of a table shows at most {LONGEST} numbers, got {array.size}"
        )
    return "   ".join(_format(number) for number in array.tolist())


def _format(number: float) -> str:
    if isinstance(number, int) or abs(number) >= 1e3:
        text = f"{number:,.0f}"
    elif number != 0 and abs(number) < 1e-3:
        text = f"{number:.1e}"
    else:
        text = f"{number:.4g}"
    return text.replace("-", "−")


def _idea_name(module: str) -> str:
    return module.rsplit(".", 1)[-1].replace("_", "-")
