"""Draw the weights of a first layer as images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from nnjax.plot._mosaic import mosaic
from nnjax.plot._style import WIDTH, label_bar, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_UNITS = 64


def first_layer(weights: np.ndarray, shape: tuple[int, ...], *, context: str = "") -> Figure:
    """Draw the weights of a first layer as images, for at most 64 hidden units with the largest norms.

    A unit responds most to an image that is bright where its weights are red and dark where they are blue. All units
    share one colour scale.

    Args:
      weights: Weights of shape (pixels, units).
      shape: Height and width of the images.
      context: The second line of the title: data, settings and score.

    Raises:
      ValueError: if the shape does not match the number of pixels.

    >>> figure = plot.first_layer(np.random.default_rng(0).normal(size=(64, 10)), (8, 8))
    """
    weights = np.asarray(weights, float)
    if len(shape) != 2 or weights.ndim != 2 or math.prod(shape) != len(weights):
        raise ValueError(f"first_layer: weights must be (pixels, units) for images {shape}, got {weights.shape}")
    units = weights.shape[1]
    rows = np.sort(np.argsort(-np.linalg.norm(weights, axis=0), kind="stable")[:MOST_UNITS])
    selection = f"the {len(rows)} largest of {units}" if units > MOST_UNITS else f"all {units}"
    columns = min(8, len(rows))
    picture, _, _ = mosaic(weights.T[rows].reshape(len(rows), *shape), columns, gap=max(1, shape[0] // 10))
    aspect = picture.shape[0] / picture.shape[1]
    figure = new_figure((WIDTH - 0.9) * aspect + 0.1, f"First-layer weights: {selection} units", context)
    axes = figure.subplots()
    top = float(np.quantile(np.abs(weights[:, rows]), 0.995)) or 1.0
    image = axes.imshow(picture, cmap="RdBu_r", vmin=-top, vmax=top)
    axes.set_axis_off()
    label_bar(figure.colorbar(image, shrink=0.7, extend="both"), "weight")
    return figure
