"""Back-propagation: all derivatives in one sweep

The chain rule gives the derivative of the loss with respect to every parameter.
Back-propagation applies it backwards from the loss, and for any number of parameters all
derivatives together cost only two or three forward passes. Forward mode starts from a
parameter and goes to the loss, so it needs one pass for each parameter.

    δ₃ = ∂loss/∂y,   δₖ₋₁ = (Wₖᵀ δₖ) ⊙ ReLU′(zₖ₋₁),   ∂loss/∂Wₖ = δₖ hₖ₋₁ᵀ
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from nnjax import debug, losses, nn
from nnjax.lecture.style import BLUE, GREY, RED, label, log_axis, panels

CAPTION = (
    "First: the cost of a gradient by both methods, relative to a forward pass. "
    "Second: all partial derivatives of the smallest network, by both methods; they "
    "agree to rounding."
)


def run():
    """Count operations for networks of growing width, and compare two gradients."""
    x, y = jax.random.normal(jax.random.key(0), (16, 8)), jnp.ones((16, 1))

    def network(width):
        net = nn.mlp([width, width], 1)
        params, state = jax.jit(net.init)(jax.random.key(0), x)

        def loss(params):
            prediction, _ = net.apply(params, state, x, train=False)
            return losses.squared_error(prediction, y).mean()

        return loss, params

    def costs(width):  # relative to a forward pass
        loss, params = network(width)
        functions = loss, jax.grad(loss), jax.jacfwd(loss)
        forward, *gradients = (debug.count_flops(f, params).total for f in functions)
        return ravel_pytree(params)[0].size, *(cost / forward for cost in gradients)

    loss, params = network(2)
    backward, _ = ravel_pytree(jax.jit(jax.grad(loss))(params))
    forward, _ = ravel_pytree(jax.jit(jax.jacfwd(loss))(params))
    table = [costs(width) for width in (2, 8, 32, 128)]
    sizes, backward_costs, forward_costs = zip(*table, strict=True)
    numbers = {
        "parameters": list(sizes),
        "cost of back-propagation": list(backward_costs),
        "cost of forward mode": list(forward_costs),
        "largest difference": abs(backward - forward).max(),
    }
    return numbers, (table, backward, forward)


def draw(table, backward, forward):
    """Draw the cost against the number of parameters, and the two gradients."""
    left, right = panels(2)
    sizes, sweep_costs, forward_costs = zip(*table, strict=True)
    left.plot(sizes, forward_costs, "o-", color=RED, label="forward mode")
    left.plot(sizes, sweep_costs, "o-", color=BLUE, label="back-propagation")
    log_axis(left.xaxis)
    log_axis(left.yaxis)
    left.set_ylim(1, None)
    left.legend()
    label(left, "cost of the gradient", "parameters", "forward passes")

    ends = [backward.min(), backward.max()]
    right.plot(ends, ends, color=GREY, linewidth=0.8)
    right.plot(backward, forward, "o", color=BLUE, markersize=4)
    label(right, f"{len(backward)} derivatives", "by back-propagation", "by forward mode")
    return left, right
