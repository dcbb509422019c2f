"""Plot the function that a regression of one feature has learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from nnjax.plot._style import HELD_OUT, TRAIN, legend, new_figure, shorten, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = 400  # number of points at which the function is evaluated
MOST_ROWS = 5000


def function(
    predict: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    target: np.ndarray,
    name: str,
    target_name: str,
    *,
    context: str = "",
) -> Figure:
    """Plot the predictions of a regression against its only feature, together with the data.

    For an ensemble, draw its mean, a band of ± 2 standard deviations, and up to 20 members as thin lines.

    Args:
      predict: Function of the feature (n,) that returns predictions (members, n); one member for a single network.
      x: Values of the feature (rows,), in the units of the axis.
      target: Targets (rows,).
      name: Name of the feature.
      target_name: Name of the target.
      context: The second line of the title: data, settings and score.

    >>> figure = plot.function(lambda x: np.sin(x)[None], np.arange(3.0), np.array([0.0, 0.8, 0.9]), "time", "height")
    >>> figure.axes[0].get_ylabel()
    'height'
    """
    x, target = np.asarray(x, float), np.asarray(target, float)
    margin = 0.05 * (float(np.ptp(x)) or 1.0)
    place = np.linspace(x.min() - margin, x.max() + margin, GRID)
    curve = np.asarray(predict(place), float)
    figure = new_figure(3.4, "Function: the prediction against the only feature", context)
    axes = figure.subplots()
    faint = 0.6 if len(x) < 500 else 0.25
    axes.plot(
        x[:MOST_ROWS], target[:MOST_ROWS], "o", color=TRAIN, markersize=3.5, alpha=faint, markeredgewidth=0,
        label="test rows",
    )  # fmt: skip
    mean = curve.mean(0)
    if len(curve) > 1:
        for member in curve[:20]:
            axes.plot(place, member, color=HELD_OUT, linewidth=0.6, alpha=0.35)
        sd = curve.std(0, ddof=1)
        axes.fill_between(place, mean - 2 * sd, mean + 2 * sd, color=HELD_OUT, alpha=0.2, linewidth=0, label="± 2 sd")
    label = "prediction" if len(curve) == 1 else f"mean of {len(curve)} members"
    axes.plot(place, mean, color=HELD_OUT, label=label)
    axes.set(xlabel=shorten(name, 40), ylabel=shorten(target_name, 34))
    style(axes)
    legend(axes, columns=3)
    return figure
