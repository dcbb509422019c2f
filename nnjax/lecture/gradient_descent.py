"""Gradient descent: step downhill

The gradient is the vector of the partial derivatives of the loss, and it points uphill, so
each step goes against it. The learning rate λ decides the length of the steps: too small
and the descent barely moves, too large and each step jumps farther up on the other side of
the valley. In a valley of curvature L the limit is λ = 2/L.

    θ ← θ − λ ∇loss(θ)
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax import losses, optim
from nnjax.lecture.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    RED,
    contours,
    label,
    log_axis,
    panels,
)

CAPTION = (
    "The grey rings are contour lines of the loss over the slope and offset of a line; the "
    "cross is the minimum. The last panel shows the loss after each step. At λ = 1.02 · "
    "2/L the descent diverges even if it starts close to the minimum."
)


def descend(loss, start, optimizer, steps):
    """Return the parameters before and after each step, of shape (steps + 1, ...)."""

    def step(carry, _):
        params, state = carry
        gradient = jax.grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), params

    (end, _), path = jax.lax.scan(step, (start, optimizer.init(start)), length=steps)
    return jnp.concatenate([path, end[None]])


def run():
    """Fit a line by gradient descent with three learning rates."""
    x = jnp.array([-0.5, 0.0, 1.0, 2.0])
    y = 1.5 * x - 1

    def loss(theta):  # θ = (slope, offset)
        line = theta[0] * x + theta[1]
        return losses.squared_error(line[:, None], y[:, None]).mean()

    start = jnp.array([-0.5, 0.5])
    curvatures = np.linalg.eigvalsh(jax.jit(jax.hessian(loss))(start))
    limit = 2 / curvatures.max()
    sizes = {"too small": 0.02, "right": 0.45, "too large": 1.02}  # in units of the limit
    rates = limit * jnp.array([*sizes.values()])
    paths = jax.vmap(lambda rate: descend(loss, start, optim.sgd(rate), 40))(rates)
    curves = jax.vmap(jax.vmap(loss))(paths)
    numbers = {
        "curvatures": curvatures,
        "2/L": limit,
        "λ": rates,
        "loss at the start": curves[:, 0],
        "loss after 40 steps": curves[:, -1],
    }
    return numbers, (loss, sizes, paths, curves)


def draw(loss, sizes, paths, curves):
    """Draw the three paths on the loss surface, and the loss over the steps."""
    *maps, below = panels(4, height=2.4)
    x, y = np.linspace(-2.2, 5, 90), np.linspace(-3, 1.5, 90)
    for i, (name, size) in enumerate(sizes.items()):
        axes, colour = maps[i], (GREEN, BLUE, RED)[i]
        contours(axes, loss, x, y, np.geomspace(0.05, 60, 9))
        axes.plot(*paths[i].T, ".-", color=colour, linewidth=1, markersize=4)
        axes.plot(*paths[i, 0], "o", color=INK, markersize=4)
        axes.plot(1.5, -1, "+", color=INK, markersize=9)
        axes.set(xlim=x[[0, -1]], ylim=y[[0, -1]])
        label(axes, f"{name}: λ = {size} · 2/L", "slope", "offset")
        below.plot(curves[i], color=colour, label=name)
    below.axhline(curves[0, 0], color=GREY, linewidth=0.6, linestyle="--")
    log_axis(below.yaxis)
    below.set_ylim(1e-6, 1e2)
    below.legend()
    label(below, "loss over the steps", "step", "loss")
    return *maps, below
