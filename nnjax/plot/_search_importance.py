"""Plot the importance of the settings of a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnjax.plot._style import HELD_OUT, SMALL, TRAIN, legend, new_figure, shorten, style
from nnjax.plot._trials import Rows, column_of, explained, trials_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PERMUTATIONS = 200


def search_importance(table: Rows, names: Sequence[str], *, context: str = "") -> Figure:
    """Plot the importance of each setting: the share of the variance of the log score that it explains alone.

        1 - variance within groups of similar values / total variance,   of the log score at the first rung

    The first rung is used because all trials reach it. A line marks the share that a setting without any effect exceeds
    by chance in 5 % of the cases (200 permutations of the trials).

    Args:
      table: The table in the result of `train.search`.
      names: Names of the settings.
      context: The second line of the title: data, settings and score.

    Raises:
      ValueError: if there are no settings or no trials.

    >>> rows = [{"trial": i, "rate": 10.0**-i, "score": i + 1.0, "epochs": 1.0, "score_1": i + 1.0} for i in range(9)]
    >>> [text.get_text() for text in plot.search_importance(rows, ["rate"]).axes[0].texts]
    ['64 %']
    """
    trials = trials_of("search_importance", table, names)
    places = [column_of(table, name).x for name in names]
    shares = np.array([explained(x, trials.early) for x in places])
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(len(trials.trial)) for _ in range(PERMUTATIONS)]
    chance = np.array([np.quantile([explained(x[order], trials.early) for order in shuffled], 0.95) for x in places])
    order = np.argsort(shares, kind="stable")
    figure = new_figure(1.1 + 0.3 * len(order), "Search: importance of the settings", context)
    axes = figure.subplots()
    place = np.arange(len(order))
    axes.barh(place, shares[order], color=TRAIN, alpha=0.55, height=0.65)
    axes.vlines(chance[order], place - 0.4, place + 0.4, color=HELD_OUT, linewidth=1.4, label="chance (95 %)")
    for y, share, least in zip(range(len(order)), shares[order], chance[order], strict=True):
        axes.text(max(share, least) + 0.015, y, f"{100 * share:.0f} %", va="center", fontsize=SMALL)
    axes.set_yticks(place, [shorten(names[i].replace("_", " "), 24) for i in order])
    axes.set(
        xlabel=f"share of the variance of the scores after {trials.first}", xticks=np.linspace(0, 1, 6),
        xlim=(0, 1.1), ylim=(-0.6, len(order) - 0.4),
    )  # fmt: skip
    style(axes)
    axes.grid(visible=False, axis="y")
    legend(axes)
    return figure
