"""Draw a network as circles and lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnjax.lecture.style import GREY, map_axes, signs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

APART = 2.4  # distance between layers, in units of the distance between neurons


def draw_network(
    axes: Axes,
    values: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    names: Sequence[str] = (),
    absent: Sequence[Sequence[int]] = (),
) -> None:
    """Draw the layers of a network from left to right.

    Args:
      axes: the panel.
      values: the input and the output of each layer, each of shape (neurons,).
      weights: the weights between consecutive layers, each of shape (inputs, outputs).
      names: names of the layers, written below them.
      absent: the indices of the neurons to cross out in each layer; empty means none.
    """
    crosses = absent or [()] * len(values)
    places = [
        [(i * APART, (len(v) - 1) / 2 - j) for j in range(len(v))]
        for i, v in enumerate(values)
    ]
    for i, w in enumerate(weights):
        for (a, b), weight in np.ndenumerate(w):
            if a not in crosses[i] and b not in crosses[i + 1]:
                (x0, y0), (x1, y1) = places[i][a], places[i + 1][b]
                width, colour = 0.3 + 1.7 * abs(weight) / abs(w).max(), signs(weight)
                axes.plot([x0, x1], [y0, y1], color=colour, linewidth=width, alpha=0.55)
    for layer, numbers, crossed in zip(places, values, crosses, strict=True):
        for j, (place, value) in enumerate(zip(layer, numbers, strict=True)):
            axes.scatter(*place, 210, "none", edgecolors=GREY, linewidths=0.8, zorder=3)
            if j in crossed:
                axes.scatter(*place, 120, GREY, marker="x", linewidths=1.2, zorder=4)
            elif value:
                size = 30 + 150 * abs(value) / abs(numbers).max()
                axes.scatter(*place, size, signs(value), linewidths=0, zorder=2)
    lowest = min(y for layer in places for _, y in layer)
    for i, name in enumerate(names):
        axes.text(i * APART, lowest - 0.75, name, ha="center", va="top")
    axes.set(
        xlim=(-0.9, APART * (len(values) - 1) + 0.9), ylim=(lowest - 1.2, -lowest + 0.4)
    )
    map_axes(axes)
