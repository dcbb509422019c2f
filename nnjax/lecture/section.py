"""A section of the tour: an idea, with the numbers and the pictures of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from nnjax.lecture.idea import Idea, code_of, format_number
from nnjax.lecture.style import drawing
from nnjax.lecture.svg import svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Section(NamedTuple):
    """An idea that was run."""

    idea: Idea
    code: str  # the source that was run
    elsewhere: dict[str, str]  # functions that the code calls -> the idea that shows them
    numbers: dict[str, str]  # what the run returned, formatted
    pictures: list[tuple[float, str]]  # width in inches, SVG element


def run_section(idea: Idea, before: Sequence[Idea] = ()) -> Section:
    """Run an idea and draw its picture.

    Args:
      idea: the idea.
      before: ideas that are shown before it.

    Raises:
      ModuleNotFoundError: if matplotlib is missing.
    """
    numbers, figures = run_and_draw(idea)
    with drawing(idea.name):  # saving depends on the look, too
        pictures = [
            (float(figure.get_figwidth()), svg(figure, f"{idea.name}-{i}"))
            for i, figure in enumerate(figures)
        ]
    formatted = {name: format_number(value) for name, value in numbers.items()}
    return Section(idea, *code_of(idea, before), formatted, pictures)


def run_and_draw(idea: Idea) -> tuple[dict[str, Any], list[Figure]]:
    """Run an idea; return its numbers and the figures of its panels.

    Raises:
      ModuleNotFoundError: if matplotlib is missing.
    """
    with drawing(idea.name):  # fails before the run if matplotlib is missing
        numbers, drawn = idea.run()
        return numbers, [panel.get_figure() for panel in idea.draw(*_to_numpy(drawn))]


def _to_numpy(value: Any) -> Any:
    """Return tuples, lists and dictionaries with NumPy arrays in place of JAX arrays."""
    if isinstance(value, jax.Array):
        return np.asarray(value)
    if isinstance(value, dict):  # not jax.tree.map, which sorts the keys
        return {key: _to_numpy(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        parts = [_to_numpy(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else parts
    return value
