"""Matrix–vector product: a stack of dot products

Several neurons that look at the same input compute one dot product each. Their weights are
the rows of a matrix W, and their results, one below the other, are the product W x.
Computers do this in one operation for all neurons and all examples, which is why networks
are written with matrices.

    y = W x,   yᵢ = Σⱼ Wᵢⱼ xⱼ
"""

import jax.numpy as jnp
import numpy as np

from nnjax import nn
from nnjax.lecture.style import GREEN, map_axes, minus, panels, rectangle, signs

CAPTION = (
    "Positive numbers are blue, negative ones red. The framed row of W and the input x "
    "give the framed output: multiply, then add."
)


def run():
    """Compute W x row by row, and all rows at once."""
    x = jnp.array([2.0, 1.0, 3.0, 1.5])
    W = jnp.array([[1.0, -2.0, 0.5, 1.0], [0.0, 1.0, 1.0, -1.0], [2.0, 1.0, -1.0, 0.0]])
    row_by_row = [jnp.dot(row, x) for row in W]

    layer = nn.dense(3, bias=False)  # its weights are (inputs, outputs): Wᵀ
    at_once, _ = layer.apply({"w": W.T}, (), x[None], train=False)
    numbers = {"row by row": row_by_row, "nn.dense(3)": at_once[0]}
    return numbers, (W, x, at_once[0])


def draw(W, x, y):
    """Draw the matrix, the input and the output as grids of coloured cells."""
    (axes,) = panels(1, width=4.8, height=2.3)
    _cells(axes, W, 0, 2)
    _cells(axes, x[:, None], 5.2, 2.5)
    _cells(axes, y[:, None], 7.6, 2)
    for text, place in (("·", 4.1), ("=", 6.4)):
        axes.text(place, 1, text, ha="center", va="center", fontsize=13)
    for text, place in (("W", 1.5), ("x", 5.2), ("W x", 7.6)):
        axes.text(place, 3.2, text, ha="center", fontsize=10)
    for corner, width in (((-0.5, 1.5), 4), ((7.1, 1.5), 1)):
        rectangle(axes, corner, width, 1, fill=False, edgecolor=GREEN, linewidth=2)
    axes.set(xlim=(-0.7, 8.3), ylim=(-1.2, 3.7))
    map_axes(axes)
    return (axes,)


def _cells(axes, numbers, left, top):
    for (i, j), value in np.ndenumerate(numbers):
        depth = min(abs(value) / 4, 0.8)
        corner = left + j - 0.5, top - i - 0.5
        rectangle(axes, corner, 1, 1, color=signs(value), alpha=depth, linewidth=0)
        axes.text(left + j, top - i, minus(value), ha="center", va="center")
