"""Plot the score of each setting of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnjax.plot._style import HELD_OUT, TRAIN, label_bar, legend, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def sweep(
    table: Sequence[Mapping[str, float]],
    names: Sequence[str],
    log: Sequence[str] = (),
    score: str = "validation_loss",
    *,
    context: str = "",
) -> Figure:
    """Plot the score of each setting: as a line over one hyper-parameter, or as colours over two.

    A star marks the best setting and crosses mark diverged ones. If several settings share the same two values, the
    best is drawn on top.

    Args:
      table: The table in the result of `train.sweep`, one row per setting.
      names: One or two hyper-parameters.
      log: The hyper-parameters to draw on a logarithmic axis.
      score: Name of the score; lower is better.
      context: The second line of the title: data, settings and score.

    Raises:
      ValueError: if there are not one or two names.

    >>> table = [{"rate": 0.1, "validation_loss": 0.5}, {"rate": 0.01, "validation_loss": 0.9}]
    >>> plot.sweep(table, ["rate"], log=["rate"]).axes[0].get_xscale()
    'log'
    """
    if len(names) not in (1, 2):
        raise ValueError(f"sweep: names must be one or two hyper-parameters, got {list(names)}")
    value = np.array([row[score] for row in table], float)
    good = np.isfinite(value) & (np.array([row.get("diverged", 0) for row in table]) == 0)
    x, y = (np.array([row[name] for row in table], float) for name in (names[0], names[-1]))
    label = score.replace("_", " ")
    words = [name.replace("_", " ") for name in names]
    figure = new_figure(3.4, f"Sweep: {label} over {' and '.join(words)}", context)
    axes = figure.subplots()
    if len(names) == 1:
        _line(axes, x, value, good, np.array([row.get(f"{score}_sd", np.nan) for row in table], float))
        axes.set(ylabel=label)
    else:
        _colours(axes, (x, y), value, good, label)
        axes.set(ylabel=words[1])
    axes.set(xlabel=words[0])
    _scale(axes, x, names[0] in log, "x")
    if len(names) == 2:
        _scale(axes, y, names[1] in log, "y")
    style(axes)
    legend(axes, columns=2)
    return figure


def _scale(axes: Axes, values: np.ndarray, log: bool, dimension: str) -> None:
    """Make an axis logarithmic if `log`.

    If there are 2 to 6 values, each has a tick. A logarithmic axis of less than two decades has ticks at five of the
    values, because it may contain no power of ten.
    """
    axis = axes.xaxis if dimension == "x" else axes.yaxis
    distinct = np.unique(values)
    if log:
        (axes.set_xscale if dimension == "x" else axes.set_yscale)("log")
    if 1 < len(distinct) <= 6:
        axis.set_ticks(distinct.tolist(), labels=[f"{v:.3g}" for v in distinct])
        axis.set_ticks([], minor=True)
    elif log and distinct.max() < 100 * distinct.min():
        ticks = distinct[np.unique(np.linspace(0, len(distinct) - 1, 5).round().astype(int))]
        axis.set_ticks(ticks.tolist(), labels=[f"{v:.2g}" for v in ticks])
        axis.set_ticks([], minor=True)


def _line(axes: Axes, x: np.ndarray, value: np.ndarray, good: np.ndarray, sd: np.ndarray) -> None:
    order = np.argsort(x, kind="stable")
    order = order[good[order]]
    bars = sd[order] if np.isfinite(sd[order]).any() else None
    label = None if bars is None else "mean ± sd over seeds"
    axes.errorbar(x[order], value[order], bars, color=TRAIN, marker="o", markersize=4, capsize=3, label=label)
    if good.any():
        best = np.flatnonzero(good)[value[good].argmin()]
        axes.plot(x[best], value[best], "*", color=HELD_OUT, markersize=13, label=f"lowest, {value[best]:.4g}")
        if value[good].max() > 20 * value[good].min() > 0:
            axes.set_yscale("log")
    if not good.all():
        height, transform = np.full((~good).sum(), 0.97), axes.get_xaxis_transform()
        axes.plot(x[~good], height, "x", color=HELD_OUT, transform=transform, label="diverged")


def _colours(axes: Axes, xy: tuple[np.ndarray, np.ndarray], value: np.ndarray, good: np.ndarray, label: str) -> None:
    from matplotlib.colors import LogNorm, Normalize

    x, y = xy
    order = np.argsort(-np.where(good, value, np.inf), kind="stable")
    order = order[good[order]]
    if order.size:
        low, high = value[order].min(), value[order].max()
        scale = LogNorm(low, high) if high > 5 * low > 0 else Normalize(low, high)
        points = axes.scatter(x[order], y[order], 70, value[order], cmap="viridis_r", norm=scale, clip_on=False)
        label_bar(axes.figure.colorbar(points, ax=axes), label)
        best = order[-1]
        axes.plot(
            x[best], y[best], "*", color=HELD_OUT, markersize=13, label=f"lowest, {value[best]:.4g}", clip_on=False
        )
    if not good.all():
        axes.plot(x[~good], y[~good], "x", color=HELD_OUT, label="diverged", clip_on=False)
