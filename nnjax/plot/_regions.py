"""Plot the decision regions of a classifier of two features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnjax.plot._plane import MOST_ROWS, plane_around
from nnjax.plot._style import QUALITATIVE, legend, new_figure, shorten, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = 160  # grid points along each axis


def regions(
    probabilities: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    names: Sequence[str],
    *,
    context: str = "",
) -> Figure:
    """Plot the decision regions of a classifier of two features, and the data with its true classes.

    Colours are pale where the largest probability is low; crosses mark misclassified rows. At most 2000 rows are drawn.

    Args:
      probabilities: Function of the features (n, 2) that returns the probabilities (n, classes).
      x: Features (rows, 2), in the units of the axes.
      labels: Integer labels (rows,).
      classes: Names of the classes, at most 10.
      names: Names of the two features.
      context: The second line of the title: data, settings and score.

    Raises:
      ValueError: if there are not two features, or more than 10 classes.

    >>> def left_or_right(x):
    ...     return np.stack([x[:, 0] < 0, x[:, 0] >= 0], axis=1).astype(float)
    >>> rows = np.array([[-1.0, 0.0], [1.0, 2.0]])
    >>> figure = plot.regions(left_or_right, rows, np.array([0, 1]), ["left", "right"], ["x", "y"])
    """
    from matplotlib.colors import to_rgb

    x, labels = np.asarray(x, float), np.asarray(labels)
    if len(classes) > len(QUALITATIVE):
        raise ValueError(f"regions: at most {len(QUALITATIVE)} classes have a colour, got {len(classes)}")
    grid, across, up, extent = plane_around("regions", x, GRID)
    share = np.asarray(probabilities(grid), float)
    colours = np.array([to_rgb(color) for color in QUALITATIVE[: len(classes)]])
    least = 1 / len(classes)
    certain = ((share.max(1) - least) / (1 - least)).clip(0, 1)[:, None]
    strength = 0.08 + 0.37 * certain
    area = (1 - strength) + strength * colours[share.argmax(1)]
    figure = new_figure(4.2, "Decision regions: which class is predicted where", context)
    axes = figure.subplots()
    axes.imshow(area.reshape(GRID, GRID, 3), extent=extent, origin="lower", aspect="auto", interpolation="bilinear")
    for i in range(len(classes)):
        lead = share[:, i] - np.delete(share, i, axis=1).max(1, initial=0)
        axes.contour(across, up, lead.reshape(GRID, GRID), [0], colors="#555555", linewidths=0.7)
    x, labels = x[:MOST_ROWS], labels[:MOST_ROWS]
    right = np.asarray(probabilities(x)).argmax(1) == labels
    for i, name in enumerate(classes):
        color, in_class = QUALITATIVE[i], labels == i
        look: dict[str, Any] = {"color": color, "markeredgecolor": "white", "markeredgewidth": 0.5, "linestyle": "none"}
        axes.plot(*x[in_class & right].T, "o", markersize=4.5, label=shorten(name, 24), **look)
        axes.plot(*x[in_class & ~right].T, "X", markersize=7, **look)
    if not right.all():
        axes.plot([], [], "X", color="#666666", markersize=6, label="misclassified", linestyle="none")
    axes.set(xlabel=shorten(names[0], 40), ylabel=shorten(names[1], 40), xlim=extent[:2], ylim=extent[2:])
    style(axes, grid=False)
    legend(axes, columns=4 if max(map(len, classes)) < 12 else 2)
    return figure
