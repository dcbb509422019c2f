"""Run ideas and collect their numbers and pictures in the sections of the tour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from nnjax.lecture.idea import Idea, code_of, format_number
from nnjax.lecture.style import drawing
from nnjax.lecture.svg import svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Section(NamedTuple):
    """An idea with the numbers and pictures of its run."""

    idea: Idea
    code: str  # the source that was run
    elsewhere: dict[str, str]  # functions that the code calls -> ideas with their code
    numbers: dict[str, str]  # the numbers that the run returned, formatted
    pictures: list[tuple[float, str]]  # (width in inches, SVG element)


def run_sections(ideas: Sequence[Idea]) -> Iterator[Section]:
    """Run ideas, draw them, and yield their sections in order.

    Compilation takes most of the time, so two ideas run in parallel.

    Raises:
      ModuleNotFoundError: if matplotlib is missing; no idea is run then.
    """
    with drawing(""):
        pass
    pool = ThreadPoolExecutor(2)
    try:
        runs = [pool.submit(idea.run) for idea in ideas]
        for i, (idea, run) in enumerate(zip(ideas, runs, strict=True)):
            numbers, results = run.result()
            yield make_section(idea, numbers, results, ideas[:i])
    finally:
        pool.shutdown(cancel_futures=True)


def make_section(
    idea: Idea, numbers: dict[str, Any], results: Any, before: Sequence[Idea] = ()
) -> Section:
    """Return the section of an idea, with its code, numbers and pictures.

    Args:
      idea: the idea.
      numbers: the numbers that its run returned.
      results: the values that its run returned for `draw`.
      before: the ideas that are shown earlier on the page.
    """
    figures = draw_idea(idea, results)
    with drawing(idea.name):  # saving a figure also depends on matplotlib's settings
        pictures = [
            (float(figure.get_figwidth()), svg(figure, f"{idea.name}-{i}"))
            for i, figure in enumerate(figures)
        ]
    formatted = {name: format_number(value) for name, value in numbers.items()}
    return Section(idea, *code_of(idea, before), formatted, pictures)


def draw_idea(idea: Idea, results: Any) -> list[Figure]:
    """Draw an idea from the values that its run returned, and return the figures."""
    with drawing(idea.name):
        return [panel.get_figure() for panel in idea.draw(*_to_numpy(results))]


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
