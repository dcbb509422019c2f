"""A search: the scores of all trials over each setting, and over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnjax.plot._style import HELD_OUT, INK, NEUTRAL, SMALL, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUPS = 8  # groups of values of a setting, for the share of the variance
PANEL = 2.3  # inches


def search(
    table: Sequence[Mapping[str, Any]], names: Sequence[str], log: Sequence[str] = (), *, context: str = ""
) -> Figure:
    """Plot the score of each trial over its number and over each setting; colours show how long it was trained.

    The line over the number of the trial is the lowest score so far. Each panel of a setting says how much of the
    variance of the logarithm of the first rung's scores it explains: all trials have one, so nothing is selected.

    Args:
      table: The table in the result of `train.search`.
      names: The settings.
      log: The settings to draw on a logarithmic axis.
      context: The second line of the title: data, settings and score.

    Raises:
      ValueError: without settings or trials.

    >>> rows = [{"trial": i, "rate": 10.0**-i, "score": i + 1.0, "epochs": 1.0, "score_1": i + 1.0} for i in range(4)]
    >>> [axes.get_xlabel() for axes in plot.search(rows, ["rate"], log=["rate"]).axes]
    ['trial', 'rate (explains 100 %)']
    """
    if not names or not table:
        raise ValueError(f"search: needs settings and trials, got names={list(names)} and {len(table)} rows")
    rows = sorted(table, key=lambda row: row["trial"])
    trial, score, epochs = (np.array([row[name] for row in rows], float) for name in ("trial", "score", "epochs"))
    good = np.isfinite(score)
    columns = min(2, len(names) + 1)
    height = PANEL * math.ceil((len(names) + 1) / columns)
    figure = new_figure(height, "Search: score of each trial", context, width=3.4 * columns)
    panels = figure.subplots(math.ceil((len(names) + 1) / columns), columns, squeeze=False).flat
    first = min((name for name in rows[0] if name.startswith("score_")), key=lambda name: float(name[6:]))
    early = np.array([row[first] for row in rows], float)
    for axes, name in zip(panels, ["trial", *names], strict=False):
        values: Any = trial if name == "trial" else np.array([row[name] for row in rows], object)
        kinds = [] if all(isinstance(v, (int, float)) for v in values) else sorted({_label(v) for v in values})
        x = np.array([kinds.index(_label(v)) for v in values] if kinds else values, float)
        _points(axes, x, score, epochs, good)
        if name == "trial":
            best = np.fmin.accumulate(np.where(good, score, np.nan))
            axes.step(x, best, where="post", color=INK, linewidth=1.2, label="lowest so far")
            axes.set(xlabel="trial", ylabel="score")
        else:
            axes.set(ylabel="score", xlabel=f"{name.replace('_', ' ')} (explains {100 * explained(x, early):.0f} %)")
        if kinds:
            axes.set_xticks(range(len(kinds)), kinds)
        elif name in log:
            axes.set_xscale("log")
        if good.any() and score[good].min() > 0:
            axes.set_yscale("log")
        style(axes)
    for axes in figure.axes[len(names) + 1 :]:
        axes.set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=SMALL)
    return figure


def explained(x: np.ndarray, score: np.ndarray) -> float:
    """Return the share of the variance of a score's logarithm between groups of equal size of the values of a setting.

        1 - Σ_g Σ_{i in g} (s_i - mean_g)² / Σ_i (s_i - mean)²,   adjusted for the number of groups

    It is 0 for too few trials.
    """
    good = np.isfinite(x) & np.isfinite(score)
    x, score = x[good], score[good]
    if len(x) < 2:
        return 0.0
    s = np.log(score) if score.min() > 0 else score
    distinct, place = np.unique(x, return_inverse=True)
    groups = min(GROUPS, max(2, len(x) // 4)) if len(distinct) > GROUPS else len(distinct)
    group = np.argsort(np.argsort(x, kind="stable")) * groups // len(x) if len(distinct) > GROUPS else place
    total = ((s - s.mean()) ** 2).sum()
    inside = sum(((s[group == g] - s[group == g].mean()) ** 2).sum() for g in range(groups))
    if total == 0:
        return 0.0
    free = (len(x) - 1) / max(1, len(x) - groups)
    return float(np.clip(1 - inside / total * free, 0, 1))


def _points(axes: Axes, x: np.ndarray, score: np.ndarray, epochs: np.ndarray, good: np.ndarray) -> None:
    from matplotlib import colormaps

    rungs = np.unique(epochs[good])
    for i, rung in enumerate(rungs):
        own = good & (epochs == rung)
        colour = (
            NEUTRAL if len(rungs) > 1 and i == 0 else colormaps["viridis_r"](0.25 + 0.7 * i / max(1, len(rungs) - 1))
        )
        axes.plot(
            x[own],
            score[own],
            "o",
            color=colour,
            markersize=3.2,
            markeredgewidth=0,
            label="1 epoch" if rung == 1 else f"{rung:g} epochs",
            zorder=2 + i,
        )
    if not good.all():
        height, transform = np.full((~good).sum(), 0.97), axes.get_xaxis_transform()
        axes.plot(x[~good], height, "x", color=HELD_OUT, markersize=4, transform=transform, label="diverged")
    if good.any():
        best = np.flatnonzero(good)[score[good].argmin()]
        axes.plot(x[best], score[best], "*", color=HELD_OUT, markersize=10, zorder=20)
    axes.tick_params(labelsize=SMALL)


def _label(value: Any) -> str:
    return str(getattr(value, "__name__", value))
