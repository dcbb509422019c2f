"""Skip connections: depth without fading

In a deep network the gradient passes backwards through every layer, and each layer scales
it; after fifty layers little is left for the first ones. A skip connection adds the input
of a block to its output, so the gradient can also bypass the block. Such a network starts
close to a shallow one and uses its depth as it learns.

    h ← h + f(h)
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import data, losses, nn, optim, train
from nnjax.lecture.style import BLUE, GREY, RED, label, log_axis, panels

CAPTION = (
    "Fifty hidden layers of 16 neurons on the digits. First: the norm of the gradient "
    "of the biases in each layer, before training. Second: the training loss; the dashed "
    "line is the loss of guessing, ln 10."
)


def run():
    """Train fifty layers with and without skip connections."""
    digits = data.load("digits").train
    layers = nn.dense(16, w_init=nn.initializers.lecun_normal()), jax.nn.relu
    plain = nn.serial(*layers)
    skip = nn.residual(*layers, nn.scale(1 / 50))  # fifty terms add up, so each is small

    @partial(jax.jit, static_argnums=0)
    def experiment(block):
        net = nn.serial(nn.dense(16), nn.repeat(50, block), nn.dense(10))
        run = train.Run(net, losses.cross_entropy, optim.adam(0.003), batch_size=64)
        start = run.init(jax.random.key(0), digits)

        def loss(params):
            logits, _ = net.apply(params, start.state, digits.x[:256], train=True)
            return losses.cross_entropy(logits, digits.y[:256]).mean()

        gradients = nn.paths(jax.grad(loss)(start.params)[1])  # gradients of the 50 blocks
        (biases,) = (g for path, g in gradients.items() if path.endswith("b"))
        norms = jnp.sqrt(jnp.square(biases).sum(-1))
        return norms, run.steps(start, digits, 300)[1]["loss"]

    (norms, plain_loss), (skip_norms, skip_loss) = experiment(plain), experiment(skip)
    numbers = {
        "gradient in layers 1 and 50": [norms[0], norms[-1]],
        "with skip connections": [skip_norms[0], skip_norms[-1]],
        "loss, steps 280 … 299": plain_loss[-20:].mean(),
        "loss with skip connections": skip_loss[-20:].mean(),
    }
    return numbers, (norms, skip_norms, plain_loss, skip_loss)


def draw(norms, skip_norms, plain_loss, skip_loss):
    """Draw the gradients through the layers, and the losses."""
    left, right = panels(2)
    layers = range(1, 51)
    left.plot(layers, norms, color=RED, label="without skip connections")
    left.plot(layers, skip_norms, color=BLUE, label="with skip connections")
    log_axis(left.yaxis)
    left.legend()
    label(left, "gradient at the start", "layer", "norm of the gradient")

    right.plot(plain_loss, color=RED)
    right.plot(skip_loss, color=BLUE)
    right.axhline(np.log(10), color=GREY, linewidth=0.6, linestyle="--")
    right.set_ylim(0, None)
    label(right, "training", "step", "loss")
    return left, right
