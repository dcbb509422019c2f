"""Plot the predictions of a regression of two features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnjax.plot._plane import MOST_ROWS, plane_around
from nnjax.plot._style import label_bar, legend, new_figure, shorten, style, whole_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = 120  # grid points along each axis
LEVELS = 12


def surface(
    predict: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    target: np.ndarray,
    names: Sequence[str],
    target_name: str,
    *,
    context: str = "",
) -> Figure:
    """Plot the predictions of a regression over two features as colours, and the data in the colours of their targets.

    A row whose colour differs from its surroundings is predicted badly.

    Args:
      predict: Function of the features (n, 2) that returns predictions (n,).
      x: Features (rows, 2), in the units of the axes.
      target: Targets (rows,).
      names: Names of the two features.
      target_name: Name of the target.
      context: The second line of the title: data, settings and score.

    Raises:
      ValueError: if there are not two features.

    >>> rows = np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 1.0]])
    >>> figure = plot.surface(lambda x: x.sum(1), rows, rows.sum(1), ["width", "length"], "weight")
    >>> figure.axes[0].get_xlabel(), figure.axes[1].get_ylabel()
    ('width', 'weight')
    """
    x, target = np.asarray(x, float), np.asarray(target, float)
    grid, across, up, extent = plane_around("surface", x, GRID)
    height = np.asarray(predict(grid), float).reshape(GRID, GRID)
    lowest, highest = min(height.min(), target.min()), max(height.max(), target.max())
    figure = new_figure(4.0, f"Surface: {shorten(target_name, 26)} over the two features", context)
    axes = figure.subplots()
    image = axes.imshow(
        height, extent=extent, origin="lower", aspect="auto", interpolation="bilinear", vmin=lowest, vmax=highest,
        cmap="viridis",
    )  # fmt: skip
    if np.ptp(height) > 0:
        axes.contour(across, up, height, LEVELS, colors="white", linewidths=0.5, alpha=0.6)
    axes.scatter(
        x[:MOST_ROWS, 0], x[:MOST_ROWS, 1], 26, target[:MOST_ROWS], vmin=lowest, vmax=highest, cmap="viridis",
        edgecolors="white", linewidths=0.8, label="test rows, in the colours of their targets",
    )  # fmt: skip
    bar = figure.colorbar(image, ax=axes)
    label_bar(bar, shorten(target_name, 34))
    whole_numbers(bar.ax.yaxis)
    axes.set(xlabel=shorten(names[0], 40), ylabel=shorten(names[1], 34), xlim=extent[:2], ylim=extent[2:])
    style(axes, grid=False)
    legend(axes)
    return figure
