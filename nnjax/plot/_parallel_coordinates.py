"""Plot all settings and scores of a search in parallel coordinates, with one line per trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nnjax.plot._style import FAINT, HELD_OUT, INK, NEUTRAL, SMALL, WIDTH, new_figure, plain, shorten
from nnjax.plot._trials import Column, Rows, column_of, is_wide, jitter, log_steps, trials_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPREAD = 0.04  # height of the jitter that keeps equal values apart


class _Axis(NamedTuple):
    """An axis of a setting or of the score."""

    y: np.ndarray  # (trials,), from 0 to 1 apart from jitter; NaN for a trial without a value
    ticks: list[tuple[float, str]]


def parallel_coordinates(table: Rows, names: Sequence[str], log: Sequence[str] = (), *, context: str = "") -> Figure:
    """Plot each trial as a line across one axis per setting and one for the score; the best trial is red.

    Dark lines have low scores. If dark lines meet at a value, it is good for all values of the other settings. If they
    connect different pairs of values on neighbouring axes, these two settings depend on each other.

    Args:
      table: The table in the result of `train.search`.
      names: Names of the settings.
      log: Names of the settings to draw on a logarithmic axis.
      context: The second line of the title: data, settings and score.

    Raises:
      ValueError: if there are no settings or no trials.

    >>> rows = [{"trial": i, "rate": 10.0**-i, "score": i + 1.0, "epochs": 1.0, "score_1": i + 1.0} for i in range(4)]
    >>> [text.get_text() for text in plot.parallel_coordinates(rows, ["rate"], ["rate"]).axes[0].get_xticklabels()]
    ['rate', 'score']
    """
    from matplotlib import colormaps

    trials = trials_of("parallel_coordinates", table, names)
    score, good = trials.score, trials.good
    axes_of = [_axis(column_of(table, name), np.ones_like(good), trials.trial, log=name in log) for name in names]
    wide = bool(good.any()) and is_wide(score[good])
    axes_of.append(_axis(Column(score, []), good, trials.trial, log=wide))
    figure = new_figure(3.3, "Search: all settings at once", context, width=max(WIDTH, 1.15 * len(axes_of)))
    axes = figure.subplots()
    lines = np.stack([axis.y for axis in axes_of], axis=1)
    place = np.arange(len(axes_of))
    rank = np.full(len(score), -1)
    ranked = np.flatnonzero(good)[np.argsort(score[good], kind="stable")]
    rank[ranked] = np.arange(len(ranked))
    alpha = float(np.clip(40 / len(score), 0.2, 0.85))
    for i in [*np.flatnonzero(~good), *ranked[:0:-1]]:
        colour: Any = colormaps["viridis_r"](1 - rank[i] / max(1, len(ranked) - 1)) if good[i] else NEUTRAL
        axes.plot(place, lines[i], color=colour, alpha=alpha, linewidth=0.9, linestyle="-" if good[i] else ":")
    if len(ranked):
        axes.plot(place, lines[ranked[0]], color=HELD_OUT, linewidth=2, zorder=5, label="best")
    box: dict[str, Any] = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
    last = len(axes_of) - 1
    for x, axis in enumerate(axes_of):
        axes.axvline(x, color=INK, linewidth=0.8, zorder=1)
        side: Any = ("left", 4) if x < last else ("right", -4)
        for y, label in axis.ticks:
            axes.plot([x], [y], marker="_", color=INK, markersize=6, zorder=1)
            axes.annotate(
                label, (x, y), (side[1], 0), textcoords="offset points", ha=side[0], va="center", fontsize=SMALL - 1,
                color=INK, bbox=box, zorder=6,
            )  # fmt: skip
    headings = [shorten(name.replace("_", " "), 16) for name in names] + ["score"]
    axes.set_xticks(place, [_in_lines(heading) for heading in headings], fontsize=SMALL)
    axes.set(ylim=(-0.06, 1.06), xlim=(-0.1, last + 0.1), yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    diverged = "" if good.all() else f" · dotted: {np.sum(~good)} diverged"
    title = f"red: the best trial · dark: low scores{diverged}"
    axes.set_title(title, fontsize=SMALL, color=FAINT, loc="left")
    return figure


def _axis(column: Column, good: np.ndarray, trial: np.ndarray, *, log: bool) -> _Axis:
    """Return the heights of the values on an axis from 0 to 1, and the ticks of this axis."""
    x, labels = column
    if labels:
        last = max(1, len(labels) - 1)
        ticks = [(0.5 if len(labels) == 1 else i / last, shorten(label, 14)) for i, label in enumerate(labels)]
        return _Axis((x / last if len(labels) > 1 else np.full(len(x), 0.5)) + jitter(trial, SPREAD), ticks)
    if not good.any():
        return _Axis(np.full(len(x), np.nan), [])
    low, high = float(x[good].min()), float(x[good].max())
    if low == high:
        return _Axis(np.where(good, 0.5, np.nan), [(0.5, plain(f"{low:.3g}"))])
    log = log and low > 0

    def height(value: Any) -> Any:
        ends = (np.log(low), np.log(high)) if log else (low, high)
        return ((np.log(value) if log else value) - ends[0]) / (ends[1] - ends[0])

    y = np.full(len(x), np.nan)
    y[good] = height(x[good])
    return _Axis(y, [(float(height(value)), f"{value:g}") for value in _ticks(low, high, log=log)])


def _ticks(low: float, high: float, *, log: bool) -> list[float]:
    """Return a few round numbers between two limits."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    steps = log_steps(np.array([low, high]))
    locator: Any = LogLocator(subs=steps) if log else MaxNLocator(5, steps=[1, 2, 5, 10])
    return [float(value) for value in locator.tick_values(low, high) if low <= value <= high]


def _in_lines(heading: str) -> str:
    """Break a long heading into two lines."""
    words = heading.split(" ")
    if len(heading) <= 9 or len(words) == 1:
        return heading
    half = min(range(1, len(words)), key=lambda i: abs(len(" ".join(words[:i])) - len(" ".join(words[i:]))))
    return " ".join(words[:half]) + "\n" + " ".join(words[half:])
