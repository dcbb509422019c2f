"""Momentum: a ball that keeps rolling

Plain descent forgets each step, so it stops in the first hollow and crawls over plateaus.
Momentum adds the gradients up in a velocity that decays slowly, like a heavy ball. On a
plateau it keeps the speed that it gained on the slope before, and it can roll through a
shallow minimum into a deeper one.

    v ← β v + ∇loss(θ)
    θ ← θ − λ v
"""

import jax.numpy as jnp
import numpy as np

from nnjax import optim
from nnjax.lecture.gradient_descent import descend
from nnjax.lecture.style import BLUE, GREY, RED, label, panels

CAPTION = (
    "First: a loss with two minima; the dots are the parameter after every third step, "
    "from the right. Second: the parameter over the steps; dashed lines mark the minima "
    "and the hill between them. Both runs use λ = 0.01, Momentum uses β = 0.9."
)


def run():
    """Descend into a valley with two minima, with and without Momentum."""

    def loss(theta):
        return theta**4 - 2 * theta**2 + 0.5 * theta

    start = jnp.array(1.7)
    plain = descend(loss, start, optim.sgd(0.01), 200)
    heavy = descend(loss, start, optim.momentum(0.01, 0.9), 200)
    left, hill, right = np.sort(np.roots([4, 0, -4, 0.5]).real)  # zeros of the derivative
    numbers = {
        "minima": [left, right],
        "hill between them": hill,
        "plain descent ends at": plain[-1],
        "Momentum ends at": heavy[-1],
        "losses there": [loss(plain[-1]), loss(heavy[-1])],
    }
    return numbers, (loss, plain, heavy)


def draw(loss, plain, heavy):
    """Draw the loss with both paths on it, and the paths over the steps."""
    left, right = panels(2)
    theta = np.linspace(-1.65, 1.75, 300)
    left.plot(theta, loss(theta), color=GREY)
    for name, path, colour, lift in (
        ("plain descent", plain, RED, 0.0),
        ("Momentum", heavy, BLUE, 0.2),  # drawn a little higher, to be visible
    ):
        points = path[:150:3]
        left.plot(points, loss(points) + lift, "o", color=colour, markersize=4, alpha=0.7)
        right.plot(path, color=colour, label=name)
    for place in np.roots([4, 0, -4, 0.5]).real:
        right.axhline(place, color=GREY, linewidth=0.6, linestyle="--")
    right.legend()
    label(left, "two minima", "θ", "loss")
    label(right, "over the steps", "step", "θ")
    return left, right
