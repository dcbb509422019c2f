"""Plot the predictions of a regression against the targets, and the residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nnjax.plot._style import HELD_OUT, NEUTRAL, TRAIN, legend, new_figure, shorten, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_IN_A_BIN, MOST_BINS = 8, 10
LEAST_FOR_SHARES = 20  # fewest rows for a 90 % band, which would otherwise contain nearly all rows


def predictions(
    prediction: np.ndarray, target: np.ndarray, name: str, *, sd: np.ndarray | None = None, context: str = ""
) -> Figure:
    """Plot the predictions of a regression against the targets.

    Args:
      prediction: Predictions of shape (examples,), in the units of the target.
      target: Targets of shape (examples,).
      name: Name of the target.
      sd: Standard deviation of the members' predictions (examples,), for an ensemble; drawn as error bars.
      context: The second line of the title: data, settings and score.

    >>> figure = plot.predictions(np.array([1.0, 2.1]), np.array([1.2, 2.0]), "length")
    >>> figure.axes[0].get_ylabel()
    'length, predicted'
    """
    prediction, target = np.asarray(prediction, float), np.asarray(target, float)
    figure = new_figure(4.5, f"Predictions of {shorten(name, 26)}: the diagonal is exact", context)
    axes = figure.subplots()
    ends = [min(target.min(), prediction.min()), max(target.max(), prediction.max())]
    axes.plot(ends, ends, color=NEUTRAL, linestyle="--", label="prediction = target")
    faint = 0.7 if len(target) < 500 else 0.3
    if sd is not None:
        axes.errorbar(
            target, prediction, sd, fmt="none", ecolor=TRAIN, elinewidth=0.7, alpha=0.5, label="± sd of the members"
        )
    axes.plot(target, prediction, "o", color=TRAIN, markersize=3.5, alpha=faint, markeredgewidth=0, label="test rows")
    short = shorten(name, 40)
    axes.set(xlabel=f"{short}, true", ylabel=f"{short}, predicted")
    axes.set_aspect("equal", adjustable="datalim")
    few_ticks(axes)
    style(axes)
    legend(axes, columns=3)
    return figure


def residuals(prediction: np.ndarray, target: np.ndarray, name: str, *, context: str = "") -> Figure:
    """Plot the residuals, target minus prediction, against the predictions, and their distribution.

    If there are at least 16 rows, they are divided into groups of similar predictions, each drawn as its mean residual
    with a 95 % interval. If the interval excludes zero, the predictions of the group are too low or too high on
    average. If there are at least 20 rows, a band contains 90 % of the residuals.

    Args:
      prediction: Predictions of shape (examples,), in the units of the target.
      target: Targets of shape (examples,).
      name: Name of the target.
      context: The second line of the title: data, settings and score.

    >>> figure = plot.residuals(np.array([1.0, 2.1]), np.array([1.2, 2.0]), "length")
    >>> figure.axes[0].get_xlabel()
    'length, predicted'
    """
    prediction, target = np.asarray(prediction, float), np.asarray(target, float)
    residual = target - prediction
    figure = new_figure(3.6, f"Residuals of {shorten(name, 26)}", context)
    axes, side = figure.subplots(1, 2, sharey=True, width_ratios=(4, 1))
    if len(residual) >= LEAST_FOR_SHARES:
        low, high = np.quantile(residual, [0.05, 0.95])
        label = f"90 % of the rows: {_short(low)} to {_short(high)}"
        axes.axhspan(low, high, color=NEUTRAL, alpha=0.25, linewidth=0, label=label)
    axes.axhline(0, color=NEUTRAL, linestyle="--")
    faint = 0.6 if len(target) < 500 else 0.25
    axes.plot(prediction, residual, "o", color=TRAIN, markersize=3.5, alpha=faint, markeredgewidth=0, label="test rows")
    x, mean, half = _group_means(prediction, residual)
    if len(x):
        axes.errorbar(
            x,
            mean,
            half,
            fmt="o",
            color=HELD_OUT,
            markersize=4,
            capsize=2,
            elinewidth=1.2,
            label="mean of a group, 95 %",
        )
    axes.set(xlabel=f"{shorten(name, 34)}, predicted", ylabel="true − predicted")
    side.hist(
        residual, bins=min(30, max(5, int(np.sqrt(len(residual))))), orientation="horizontal", color=TRAIN, alpha=0.6
    )
    side.set(xlabel="rows")
    few_ticks(axes)
    for panel in (axes, side):
        style(panel)
    legend(axes)
    return figure


def _group_means(prediction: np.ndarray, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean prediction, mean residual and half-width of its 95 % interval, for groups of similar predictions."""
    from scipy.special import stdtrit

    groups = min(MOST_BINS, len(prediction) // LEAST_IN_A_BIN)
    if groups < 2:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    parts = np.array_split(np.argsort(prediction, kind="stable"), groups)
    size = np.array([len(part) for part in parts])
    x = np.array([prediction[part].mean() for part in parts])
    mean = np.array([residual[part].mean() for part in parts])
    error = np.array([residual[part].std(ddof=1) for part in parts]) / np.sqrt(size)
    return x, mean, error * stdtrit(size - 1, 0.975)


def _short(number: float) -> str:
    """Return a number with about three digits, without an exponent below a million."""
    return f"{number:,.0f}" if 1000 <= abs(number) < 1e6 else f"{number:.3g}"


def few_ticks(axes: Axes) -> None:
    """Limit the number of ticks, so that long numbers do not overlap."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(6))
