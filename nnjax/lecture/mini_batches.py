"""Mini-batches: an estimate is enough

The true loss is the mean over all examples; a mini-batch takes the mean over a few. Its
loss and its gradient are estimates that are right on average: over an epoch, in which each
example occurs once, they average to the true ones. So the same work buys many rough steps
instead of one exact step.

    θ ← θ − λ ∇ 1/B Σₙ lossₙ(θ),   n in the batch of size B
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import data, losses, nn, optim, train
from nnjax.lecture.style import BLUE, INK, RED, label, panels

CAPTION = (
    "First: the losses of the 16 mini-batches of an epoch and their mean, the true "
    "loss; dots are the minima. Second: two runs over the same examples. The lines are "
    "their true losses, the small dots are the losses of the mini-batches, which "
    "training sees."
)


def run():
    """Compute the loss of each mini-batch, then train with and without mini-batches."""
    x = jax.random.normal(jax.random.key(0), (64, 1))
    y = 1.5 * x + 0.5 * jax.random.normal(jax.random.key(1), (64, 1))

    def loss(w, rows):
        return losses.squared_error(w * x[rows], y[rows]).mean()

    everything, ws = jnp.arange(64), jnp.linspace(0, 3, 101)
    batch = partial(data.batch_indices, jax.random.key(0), n=64, batch_size=4)
    epoch = jax.jit(jax.vmap(batch))(jnp.arange(16))  # (16, 4), each example once
    curves = jax.jit(jax.vmap(jax.vmap(loss, (0, None)), (None, 0)))(ws, epoch)
    slopes = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(0.0, epoch)

    def true_loss(grads, updates, params):  # recorded in each step
        return loss(params["w"][0, 0], everything)

    def train_with(size):
        net = nn.dense(1, bias=False, w_init=jax.nn.initializers.zeros)
        options = {"batch_size": size, "step_metrics": (true_loss,)}
        run = train.Run(net, losses.squared_error, optim.sgd(0.05), **options)
        start = run.init(jax.random.key(2), (x, y))
        return jax.jit(lambda ts: run.steps(ts, (x, y), 49)[1])(start)

    rough, exact = train_with(4), train_with(None)
    numbers = {
        "gradient at w = 0": jax.grad(loss)(0.0, everything),
        "mean of 16 mini-batches": slopes.mean(),
        "smallest and largest": [slopes.min(), slopes.max()],
        "true loss after 3 epochs": rough["true_loss"][48],
        "without mini-batches": exact["true_loss"][3],
    }
    return numbers, (ws, curves, rough, exact)


def draw(ws, curves, rough, exact):
    """Draw the losses against the weight, and against the examples seen."""
    left, right = panels(2)
    left.plot(ws, curves.T, color=RED, linewidth=0.7, alpha=0.6)
    left.plot([], [], color=RED, linewidth=0.7, label="mini-batches of 4")
    left.plot(ws[curves.argmin(1)], curves.min(1), "o", color=RED, markersize=2.5)
    mean = curves.mean(0)
    left.plot(ws, mean, color=INK, linewidth=2, label="all 64 examples")
    left.plot(ws[mean.argmin()], mean.min(), "o", color=INK, markersize=5)
    left.set_ylim(0, 3)
    left.legend(loc="upper right")
    label(left, "true loss and mini-batch losses", "w", "loss")

    seen = 4 * np.arange(49)
    right.plot(seen, rough["loss"], "o", color=RED, markersize=2.5, alpha=0.6)
    right.plot(seen, rough["true_loss"], color=RED, label="mini-batches of 4")
    steps, losses = 64 * np.arange(4), exact["true_loss"][:4]
    right.plot(steps, losses, "o-", color=BLUE, markersize=4, label="all 64 at once")
    right.set_ylim(0, 3)
    right.legend()
    label(right, "three epochs", "examples seen", "loss")
    return left, right
