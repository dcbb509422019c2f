"""Ensembles: ask several networks

Networks that start from different random weights make different mistakes, most of all far
from the data. Their average beats the average member: its squared error is the mean error
of the members minus their spread around it. The spread also shows where not to trust the
prediction.

    (f̄ − y)² = 1/M Σₘ (fₘ − y)² − 1/M Σₘ (fₘ − f̄)²,   f̄ = 1/M Σₘ fₘ
"""

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import losses, nn, optim, train
from nnjax.lecture.style import BLUE, GREY, INK, RED, label, panels

CAPTION = (
    "First: eight networks (thin), their average (thick) and the function behind the "
    "points (dashed). The networks agree near the data and differ elsewhere. Second: the "
    "errors of the members and of their average."
)


def run():
    """Train eight networks as one program, and compare their average with them."""
    x = jnp.concatenate([jnp.linspace(-2, -0.7, 12), jnp.linspace(0.5, 2, 12)])[:, None]
    y = jnp.sin(2 * x) + 0.15 * jax.random.normal(jax.random.key(1), x.shape)
    net = nn.mlp([32, 32], 1)
    run = train.Run(net, losses.squared_error, optim.adam(0.01), batch_size=None)
    grid = jnp.linspace(-2.4, 2.4, 121)[:, None]

    def member(key):
        ts, _ = run.steps(run.init(key, (x, y)), (x, y), 500)
        return run.predict(ts.params, ts.state, grid)

    members = jax.jit(jax.vmap(member))(jax.random.split(jax.random.key(0), 8))
    mean, truth = members.mean(0), jnp.sin(2 * grid)
    errors = jnp.square(members - truth[None]).mean((1, 2))
    spread = jnp.square(members - mean[None]).mean()
    numbers = {
        "errors of the members": errors,
        "their mean": errors.mean(),
        "spread": spread,
        "mean − spread": errors.mean() - spread,
        "error of the ensemble": jnp.square(mean - truth).mean(),
    }
    return numbers, (x, y, grid, members, truth)


def draw(x, y, grid, members, truth):
    """Draw the members and their average, and their errors."""
    left, right = panels(2)
    mean = members.mean(0)
    left.plot(grid, members[..., 0].T, color=BLUE, linewidth=0.6, alpha=0.7)
    left.plot(grid, truth, color=GREY, linestyle="--", linewidth=1)
    left.plot(grid, mean, color=BLUE, linewidth=2)
    left.plot(x, y, "o", color=INK, markersize=3)
    left.set_ylim(-2.2, 2.2)
    label(left, "eight networks and their average", "x", "y")

    errors, ensemble = (
        ((members - truth) ** 2).mean((1, 2)),
        ((mean - truth) ** 2).mean(),
    )
    right.bar(range(8), np.sort(errors), 0.7, color=BLUE, alpha=0.5)
    right.axhline(errors.mean(), color=BLUE, linestyle="--", label="mean of the members")
    right.axhline(ensemble, color=RED, label="ensemble")
    right.set_xticks([])
    right.legend()
    label(right, "errors", "member, best first", "mean squared error")
    return left, right
