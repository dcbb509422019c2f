"""Plot the scores of a search against each setting and in the order of the trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnjax.plot._style import WIDTH, legend_below, new_figure, shorten, style
from nnjax.plot._trials import (
    Rows,
    column_of,
    explained,
    jitter,
    log_axis,
    missing_for_importance,
    name_places,
    score_points,
    trials_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL = 2.3  # height of a panel in inches
SPREAD = 0.5  # width of the horizontal jitter of equal values


def search(table: Rows, names: Sequence[str], log: Sequence[str] = (), *, context: str = "") -> Figure:
    """Plot the score of each trial against each setting; colours show how long the trial was trained.

    If there are at least 8 trials, and 3 for each setting, each panel states how much of the variance of the log score
    its setting explains. This uses the score at the first rung, which all trials reach.

    Args:
      table: The table in the result of `train.search`.
      names: Names of the settings.
      log: Names of the settings to draw on a logarithmic axis.
      context: The second line of the title: data, settings and score.

    Raises:
      ValueError: if there are no settings or no trials.

    >>> rows = [{"trial": i, "rate": 10.0**-i, "score": i + 1.0, "epochs": 1.0, "score_1": i + 1.0} for i in range(9)]
    >>> [axes.get_xlabel() for axes in plot.search(rows, ["rate"], log=["rate"]).axes]
    ['rate (explains 64 %)']
    """
    trials = trials_of("search", table, names)
    too_few = missing_for_importance(table, names) > 0
    columns = min(2, len(names))
    rows = math.ceil(len(names) / columns)
    figure = new_figure(
        PANEL * rows + 0.3, "Search: scores against each setting", context, width=max(WIDTH, 3.4 * columns)
    )
    for axes, name in zip(figure.subplots(rows, columns, squeeze=False).flat, names, strict=False):
        x, labels = column_of(table, name)
        if labels:  # jitter makes all points visible
            score_points(axes, x + jitter(trials.trial, SPREAD), trials)
            name_places(axes, labels)
        else:
            score_points(axes, x, trials)
            if name in log:
                log_axis(axes, x, "x")
        share = "" if too_few else f" (explains {100 * explained(x, trials.early):.0f} %)"
        axes.set(xlabel=f"{shorten(name.replace('_', ' '), 26)}{share}", ylabel="score")
        style(axes)
        if labels:
            axes.grid(visible=False, axis="x")
    for axes in figure.axes[len(names) :]:
        axes.set_visible(False)
    legend_below(figure, figure.axes[0])
    return figure


def search_progress(table: Rows, *, context: str = "") -> Figure:
    """Plot the scores of the trials in the order in which they began, with a line for the lowest score so far.

    Args:
      table: The table in the result of `train.search`.
      context: The second line of the title: data, settings and score.

    Raises:
      ValueError: if there are no trials.

    >>> rows = [{"trial": i, "score": 3.0 - i, "epochs": 1.0, "score_1": 3.0 - i} for i in range(3)]
    >>> plot.search_progress(rows).axes[0].get_xlabel()
    'trial'
    """
    from matplotlib.ticker import MaxNLocator

    trials = trials_of("search_progress", table, ["trial"])
    figure = new_figure(3.0, "Search: scores over time", context)
    axes = figure.subplots()
    score_points(axes, trials.trial, trials)
    best = np.fmin.accumulate(np.where(trials.good, trials.score, np.nan))
    axes.step(trials.trial, best, where="post", color="#222222", linewidth=1.2, label="lowest so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel="score (lower is better)")
    style(axes)
    legend_below(figure, axes)
    return figure
