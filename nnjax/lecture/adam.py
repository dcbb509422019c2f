"""Adam: Momentum with the scaling of RMSProp

Adam averages the gradients, as Momentum does, and divides by the root of their mean square,
as RMSProp does. Both averages start at zero and are too small at first; dividing by 1 − βᵗ
corrects this. Adam is the usual first choice, because the same learning rate suits many
networks.

    m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²
    θ ← θ − λ m̂ / (√v̂ + ε),   m̂ = m / (1 − β₁ᵗ),   v̂ = v / (1 − β₂ᵗ)
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import optim
from nnjax.lecture.gradient_descent import descend
from nnjax.lecture.style import (
    BLUE,
    GREEN,
    INK,
    PURPLE,
    RED,
    contours,
    label,
    log_axis,
    panels,
)

CAPTION = (
    "First: four paths of 150 steps from the dot to the cross, through Rosenbrock's "
    "curved valley. Each optimizer has the best of 41 learning rates. Second: the loss "
    "over the steps."
)


def run():
    """Descend through a curved valley with four optimizers, each at its best rate."""

    def loss(theta):  # Rosenbrock's function
        return (1 - theta[0]) ** 2 + 10 * (theta[1] - theta[0] ** 2) ** 2

    start = jnp.array([-1.2, 1.5])
    rates = jnp.geomspace(1e-3, 1.0, 41)
    optimizers = {
        "SGD": optim.sgd,
        "Momentum": partial(optim.momentum, momentum=0.9),
        "RMSProp": partial(optim.rmsprop, decay=0.9),
        "Adam": partial(optim.adam, b1=0.9, b2=0.99),
    }
    paths, numbers = {}, {}
    for name, optimizer in optimizers.items():
        tried = jax.vmap(lambda r, o=optimizer: descend(loss, start, o(r), 150))(rates)
        final = jax.vmap(loss)(tried[:, -1])
        best = jnp.nanargmin(final)  # rates that are too large end in NaN
        paths[name] = tried[best]
        numbers[name] = f"λ = {rates[best]:.3f}, final loss {final[best]:.1e}"
    return numbers, (loss, paths)


def draw(loss, paths):
    """Draw the four paths on the loss surface, and their losses."""
    left, right = panels(2, height=3.0)
    x, y = np.linspace(-1.8, 1.6, 90), np.linspace(-0.9, 2.4, 90)
    contours(left, loss, x, y, np.geomspace(0.2, 120, 9))
    for i, (name, path) in enumerate(paths.items()):
        colour = (RED, GREEN, PURPLE, BLUE)[i]
        left.plot(*path.T, ".-", color=colour, linewidth=1, markersize=2.5, label=name)
        right.plot(loss(path.T), color=colour, label=name)
        left.plot(*path[0], "o", color=INK, markersize=5)
    left.plot(1, 1, "+", color=INK, markersize=9)
    left.set(xlim=x[[0, -1]], ylim=y[[0, -1]])
    left.legend(loc="lower left")
    log_axis(right.yaxis)
    label(left, "paths", "θ₁", "θ₂")
    label(right, "loss over the steps", "step", "loss")
    return left, right
