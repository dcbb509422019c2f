"""Dropout: an ensemble in one network

In every training step dropout sets each hidden value to zero with probability p and divides
the others by 1 − p. So each step trains a different thinned network, and all these networks
share their weights. In prediction nothing is dropped, and the whole network returns the
average of the thinned ones: exactly if only a linear layer follows, otherwise nearly.

    h ← mask ⊙ h / (1 − p),   mask = 1 with probability 1 − p, else 0
"""

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import losses, nn, optim, train
from nnjax.lecture.diagram import draw_network
from nnjax.lecture.style import BLUE, GREY, RED, label, minus, panels

CAPTION = (
    "First: a network and two of its thinned networks; crosses mark dropped neurons. "
    "Then: the predictions of 30 thinned networks, the average of 4 096 (dashed) and the "
    "whole network. Last: the distribution of the 4 096 predictions at x = −1.49."
)


def run():
    """Train a network with dropout, then draw thinned networks and average them."""
    x = jnp.linspace(-2, 2, 64)[:, None]
    y = jnp.sin(2 * x)
    net = nn.mlp([32], 1, dropout=0.2)
    run = train.Run(net, losses.squared_error, optim.adam(0.01), batch_size=None)
    key = jax.random.key(0)
    ts, _ = jax.jit(lambda: run.steps(run.init(key, (x, y)), (x, y), 1000))()
    whole, _ = net.apply(ts.params, ts.state, x, train=False)

    def thin(key):  # the network with the mask of this key
        return net.apply(ts.params, ts.state, x, train=True, key=key)[0]

    thinned = jax.jit(jax.vmap(thin))(jax.random.split(key, 4096))
    numbers = {
        "x": x[8, 0],
        "target": y[8, 0],
        "whole network": whole[8, 0],
        "thinned networks, mean": thinned[:, 8, 0].mean(),
        "thinned networks, sd": thinned[:, 8, 0].std(),
    }
    return numbers, (x[:, 0], whole[:, 0], thinned[:, :, 0])


def draw(x, whole, thinned):
    """Draw three diagrams, then predictions of thinned networks, at all x and at one."""
    diagrams = panels(3, width=2.3, height=1.6)
    random = np.random.default_rng(1)
    weights = [random.normal(size=(2, 5)), random.normal(size=(5, 1))]
    for axes, dropped in zip(diagrams, ([], [1, 4], [0, 2, 3]), strict=True):
        absent = [[], dropped, []]
        draw_network(axes, [np.ones(2), np.ones(5), np.ones(1)], weights, absent=absent)

    left, right = panels(2)
    mean = thinned.mean(0)
    left.plot(x, thinned[:30].T, color=GREY, linewidth=0.4, alpha=0.7)
    left.plot(x, whole, color=BLUE, linewidth=2.2, label="whole network")
    left.plot(x, mean, color=RED, linestyle="--", linewidth=1.2, label="average")
    left.legend(loc="lower right")
    label(left, "thinned networks", "x", "y")
    right.hist(thinned[:, 8], 40, color=GREY, alpha=0.5)
    right.axvline(whole[8], color=BLUE, linewidth=2.2, label="whole network")
    right.axvline(mean[8], color=RED, linestyle="--", linewidth=1.2, label="average")
    right.legend()
    label(right, f"at x = {minus(x[8])}", "y", "thinned networks")
    return *diagrams, left, right
