"""RMSProp: a step size for each parameter

In a valley that is steep in one direction and flat in the other, the steep direction allows
only a small learning rate, and progress in the flat one is slow. RMSProp divides each
gradient by the root of its mean square, so all parameters move at the same pace. Only the
signs and relative changes of the gradients matter, not their scale.

    v ← β v + (1 − β) g²
    θ ← θ − λ g / (√v + ε),   g = ∇loss(θ)
"""

import jax.numpy as jnp
import numpy as np

from nnjax import optim
from nnjax.lecture.gradient_descent import descend
from nnjax.lecture.style import BLUE, INK, RED, contours, label, panels

CAPTION = (
    "First: both paths from the dot, in a valley whose curvature is 400 times as large "
    "across as along. Second: both parameters over the steps; for RMSProp they coincide."
)


def run():
    """Descend into a badly scaled valley, with and without RMSProp."""
    curvatures = jnp.array([1.0, 400.0])

    def loss(theta):
        return 0.5 * (curvatures * theta**2).sum()

    start = jnp.array([1.0, 1.0])
    plain = descend(loss, start, optim.sgd(1.9 / 400), 120)
    scaled = descend(loss, start, optim.rmsprop(0.01, 0.9, eps=0.0), 120)
    numbers = {
        "curvatures": curvatures,
        "plain, after 120 steps": plain[-1],
        "RMSProp, after 120 steps": scaled[-1],
        "losses": [loss(plain[-1]), loss(scaled[-1])],
    }
    return numbers, (loss, plain, scaled)


def draw(loss, plain, scaled):
    """Draw both paths in the valley, and both parameters over the steps."""
    left, right = panels(2)
    x, y = np.linspace(-0.2, 1.15, 60), np.linspace(-1.1, 1.15, 60)
    contours(left, loss, x, y, np.geomspace(0.02, 60, 9))
    for name, path, colour in (
        ("plain descent", plain, RED),
        ("RMSProp", scaled, BLUE),
    ):
        left.plot(*path.T, ".-", color=colour, linewidth=1, markersize=3, label=name)
        right.plot(path[:, 0], color=colour, label=f"{name}, flat")
        right.plot(path[:, 1], "--", color=colour, linewidth=0.8, label=f"{name}, steep")
    left.plot(1, 1, "o", color=INK, markersize=5)
    left.plot(0, 0, "+", color=INK, markersize=9)
    left.legend(loc="lower left")
    right.legend()
    label(left, "paths", "flat direction", "steep direction")
    label(right, "parameters", "step", "θ")
    return left, right
