"""Plot the permutation importance of the columns of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnjax.plot._style import NEUTRAL, TRAIN, new_figure, shorten, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_COLUMNS = 20


def importance(names: Sequence[str], drops: np.ndarray, score: str = "accuracy", *, context: str = "") -> Figure:
    """Plot how much the score drops when the values of a column are shuffled, with 95 % intervals over repetitions.

    At most 20 columns are drawn, those with the largest mean drops.

    Args:
      names: Names of the columns.
      drops: Drops in the score, of shape (columns, repetitions).
      score: Name of the score.
      context: The second line of the title: data, settings and score.

    Raises:
      ValueError: if `drops` is empty or does not have one row per column.

    >>> drops = np.random.default_rng(0).normal([[0.2], [0.0]], 0.01, (2, 20))
    >>> [text.get_text() for text in plot.importance(["height", "name"], drops).axes[0].get_yticklabels()]
    ['name', 'height']
    """
    drops = np.asarray(drops, float)
    if drops.ndim != 2 or len(drops) != len(names) or not drops.size:
        raise ValueError(f"importance: drops must be ({len(names)}, repetitions), got {drops.shape}")
    middle = drops.mean(1)
    order = np.argsort(-middle, kind="stable")[:MOST_COLUMNS][::-1]
    low, high = np.quantile(drops[order], [0.025, 0.975], axis=1)
    selection = "" if len(names) <= MOST_COLUMNS else f" (the first {MOST_COLUMNS} of {len(names)} columns)"
    figure = new_figure(0.7 + 0.24 * len(order), f"Permutation importance{selection}", context)
    axes = figure.subplots()
    place = np.arange(len(order))
    axes.barh(place, middle[order], color=TRAIN, alpha=0.55, height=0.7)
    axes.hlines(place, low, high, color="#222222", linewidth=1.2)
    axes.axvline(0, color=NEUTRAL)
    axes.set_yticks(place, [shorten(names[i], 24) for i in order])
    axes.set(xlabel=f"drop in the test {score} when shuffled (lines: 95 %)", ylim=(-0.6, len(order) - 0.4))
    style(axes)
    axes.grid(visible=False, axis="y")
    return figure
