"""XOR: two lines, so two layers

XOR is 1 if exactly one of two inputs is 1. No line separates its corners, so no single
perceptron computes it. Two hidden neurons draw two lines and move the corners to new
places, where one line is enough.

    y = ReLU(x₁ + x₂) − 2 ReLU(x₁ + x₂ − 1)
"""

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import nn
from nnjax.lecture.style import BLUE, GREY, label, panels, signs

CAPTION = (
    "Blue corners should give 1, red ones 0. First: the best line still has one corner "
    "on the wrong side (marked ×). Second: between two lines the network answers more "
    "than ½. Third: the corners after the hidden layer; two of them coincide, and one "
    "line separates blue from red."
)


def run():
    """Try 4 913 lines, then set the weights of two hidden neurons by hand."""
    x = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = jnp.array([0.0, 1.0, 1.0, 0.0])

    def perceptron(line):  # (w₁, w₂, b)
        params = {"w": line[:2, None], "b": line[2:]}, (), ()
        return nn.perceptron(nn.heaviside).apply(params, ((),) * 3, x, train=False)[0]

    values = jnp.linspace(-2, 2, 17)
    lines = jnp.stack(jnp.meshgrid(values, values, values), -1).reshape(-1, 3)
    right = (jax.vmap(perceptron)(lines) == y[None]).sum(-1)

    net = nn.mlp([2], 1)
    hidden = {"w": jnp.ones((2, 2)), "b": jnp.array([0.0, -1.0])}
    output = {"w": jnp.array([[1.0], [-2.0]]), "b": jnp.zeros(1)}
    answers, _ = net.apply(((), hidden, (), output), ((),) * 4, x, train=False)
    numbers = {
        "lines": len(lines),
        "corners right, at most": f"{right.max()} of 4",
        "network with a hidden layer": answers[:, 0],
    }
    return numbers, (x, y, lines[right == right.max()])


def draw(x, y, lines):
    """Draw the best line, the two lines of the network, and the hidden layer."""
    single, double, hidden = panels(3, width=2.3, height=2.5)
    w, b = lines[:, :2], lines[:, 2:]
    distances = abs(w @ x.T + b) / np.linalg.norm(w, axis=1, keepdims=True)
    w, b = (v[distances.min(1).argmax()] for v in (w, b))  # farthest from all corners
    wrong = x[(x @ w + b > 0) != (y > 0)]
    ends = np.array([-0.5, 1.5])
    single.plot(*wrong.T, "x", color=GREY, markersize=14, markeredgewidth=2)
    single.plot(ends, -(b + w[0] * ends) / w[1], color=GREY)
    double.fill_between(ends, 0.5 - ends, 1.5 - ends, color=BLUE, alpha=0.15, linewidth=0)
    double.plot(ends, 0.5 - ends, ends, 1.5 - ends, color=GREY)
    long = np.array([-0.5, 2.5])
    line = (long - 0.5) / 2
    hidden.fill_between(long, -1, line, color=BLUE, alpha=0.15, linewidth=0)
    hidden.plot(long, line, color=GREY)
    moved = np.maximum(0, x.sum(1, keepdims=True) - np.array([0, 1]))
    for axes, points in ((single, x), (double, x), (hidden, moved)):
        axes.scatter(*points.T, 60, signs(y - 0.5), zorder=3)
        axes.set(xlim=ends, ylim=ends, xticks=[0, 1], yticks=[0, 1])
    hidden.set(xlim=long, xticks=[0, 1, 2])
    label(single, "one line", "x₁", "x₂")
    label(double, "two lines", "x₁", "x₂")
    label(hidden, "hidden layer", "ReLU(x₁ + x₂)", "ReLU(x₁ + x₂ − 1)")
    return single, double, hidden
