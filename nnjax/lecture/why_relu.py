"""Why ReLU: without it, depth is worth nothing

A layer without activation is affine, and a chain of affine functions is again affine: three
matrices multiply into one. So such a network can only separate the classes by one straight
line, however deep it is. ReLU bends the function between the layers, and lines join to form
any boundary.

    W₃ (W₂ (W₁ x + b₁) + b₂) + b₃ = W x + b,   W = W₃ W₂ W₁
"""

from functools import partial

import jax
import jax.numpy as jnp

from nnjax import losses, metrics, nn, optim, train
from nnjax.lecture.style import BLUE, GREY, RED, label, panels, signs

CAPTION = (
    "The same network with two hidden layers, trained on the same points; blue is where "
    "it answers “inside”. Without ReLU no training can do better than a line."
)


def run():
    """Train a network with and without ReLU, and multiply the matrices of the latter."""
    x = jax.random.uniform(jax.random.key(0), (300, 2), minval=-1.5, maxval=1.5)
    y = jnp.int32((x[:, 0] - 0.6) ** 2 + (x[:, 1] - 0.4) ** 2 < 1)  # inside a circle?
    side = jnp.linspace(-1.5, 1.5, 61)
    grid = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)

    @partial(jax.jit, static_argnums=0)
    def trained(activation):
        net = nn.mlp([16, 16], 2, activation=activation)
        run = train.Run(net, losses.cross_entropy, optim.adam(0.01), batch_size=None)
        ts, _ = run.steps(run.init(jax.random.key(0), (x, y)), (x, y), 500)
        return ts.params, *(run.predict(ts.params, ts.state, v) for v in (x, grid))

    params, linear, linear_map = trained(lambda h: h)
    _, relu, relu_map = trained(jax.nn.relu)
    first, second, last = (p for p in params if p)
    W = first["w"] @ second["w"] @ last["w"]
    b = (first["b"] @ second["w"] + second["b"]) @ last["w"] + last["b"]
    numbers = {
        "always “outside”": f"{(y == 0).mean():.1%} right",
        "without ReLU": f"{metrics.accuracy(linear, y):.1%} right",
        "with ReLU": f"{metrics.accuracy(relu, y):.1%} right",
        "without ReLU − (W x + b)": abs(linear - (x @ W + b[None])).max(),
    }
    return numbers, (x, y, side, linear_map, relu_map)


def draw(x, y, side, linear_map, relu_map):
    """Draw the points, and the region in which each network answers "inside"."""
    left, right = panels(2, height=3.2)
    for axes, logits in ((left, linear_map), (right, relu_map)):
        score = (logits[:, 1] - logits[:, 0]).reshape(61, 61)
        regions = {"levels": [-1e9, 0, 1e9], "colors": [RED, BLUE], "alpha": 0.15}
        axes.contourf(side, side, score, **regions)
        axes.contour(side, side, score, [0], colors=GREY, linewidths=1.6)
        axes.scatter(*x.T, 6, signs(y - 0.5))
        axes.set_aspect("equal")
    label(left, "without ReLU", "x₁", "x₂")
    label(right, "with ReLU", "x₁", "x₂")
    return left, right
