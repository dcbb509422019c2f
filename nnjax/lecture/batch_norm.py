"""BatchNorm: each layer gets numbers of the same scale

Each layer multiplies the spread of its inputs by some factor, so after many layers the
numbers can vanish or explode, and with them the gradient. BatchNorm standardises every
feature over the batch, then scales and shifts it by two learned numbers. In prediction it
uses running averages of mean and variance instead of the batch.

    y = γ (x − mean) / √(variance + ε) + β
"""

from functools import partial

import jax
import numpy as np

from nnjax import data, losses, nn, optim, train
from nnjax.lecture.style import BLUE, GREY, RED, label, panels

CAPTION = (
    "First and second: the distribution of the numbers before the activation in layers "
    "1 to 8 of a network with small random weights, drawn at equal height. Without "
    "BatchNorm the numbers shrink to almost zero. Third: the training loss of both "
    "networks; the dashed line is the loss of guessing, ln 10."
)


def run():
    """Pass digits through eight layers with and without BatchNorm; train both networks."""
    digits = data.load("digits").train
    linear = nn.dense(64, bias=False, w_init=jax.nn.initializers.normal(0.1))

    @partial(jax.jit, static_argnums=0)
    def experiment(layer):
        net = nn.serial(nn.repeat(8, nn.serial(layer, jax.nn.relu)), nn.dense(10))
        run = train.Run(net, losses.cross_entropy, optim.sgd(0.05), batch_size=64)
        start = run.init(jax.random.key(0), digits)

        def through(h, copy):  # one of the eight layers
            params, state = copy
            z, _ = layer.apply(params[0], state[0], h, train=True)
            return jax.nn.relu(z), z

        copies = start.params[0], start.state[0]
        _, outputs = jax.lax.scan(through, digits.x[:256], copies)
        return outputs, run.steps(start, digits, 100)[1]["loss"]

    plain, plain_loss = experiment(nn.serial(linear))
    normed, normed_loss = experiment(nn.serial(linear, nn.batch_norm()))
    numbers = {
        "sd in layers 1 … 8": plain.std((1, 2)),
        "with BatchNorm": normed.std((1, 2)),
        "loss, steps 90 … 99": plain_loss[-10:].mean(),
        "loss with BatchNorm": normed_loss[-10:].mean(),
    }
    return numbers, (plain, normed, plain_loss, normed_loss)


def draw(plain, normed, plain_loss, normed_loss):
    """Draw the distributions layer by layer, and both losses."""
    left, middle, right = panels(3, width=2.3, height=2.6)
    _ridges(left, plain, RED)
    _ridges(middle, normed, BLUE)
    right.plot(plain_loss, color=RED, label="without")
    right.plot(normed_loss, color=BLUE, label="with")
    right.axhline(np.log(10), color=GREY, linewidth=0.6, linestyle="--")
    right.set_ylim(0, None)
    right.legend(loc="center right")
    label(left, "without BatchNorm", "before ReLU", "layer")
    label(middle, "with BatchNorm", "before ReLU", "layer")
    label(right, "training", "step", "loss")
    return left, middle, right


def _ridges(axes, layers, colour):
    edges = np.linspace(-3, 3, 61)
    centres = (edges[1:] + edges[:-1]) / 2
    for i, values in enumerate(layers):
        counts, _ = np.histogram(values, edges)
        ridge = 1.5 * counts / counts.max() - i
        axes.fill_between(centres, -i, ridge, color=colour, alpha=0.45, linewidth=0)
        axes.plot(centres, ridge, color=colour, linewidth=0.7)
    axes.set_yticks(-np.arange(8), range(1, 9))
