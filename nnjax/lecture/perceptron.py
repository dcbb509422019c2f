"""Perceptron: which side of a line

A perceptron adds a bias b to the dot product and applies an activation. The points with
b + w · x = 0 form a line at a right angle to w: on one side Rosenblatt's perceptron answers
1, on the other 0. ReLU keeps the line but lets the answer grow with the distance from it;
a small change of the weights then changes the answer, so there is a gradient to learn from.

    y = ReLU(b + w · x),   ReLU(z) = max(0, z)
"""

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import nn
from nnjax.lecture.style import BLUE, INK, RED, label, panels

CAPTION = (
    "First: both activations. Second: the four corners as inputs, and the line of a "
    "perceptron that computes AND. Its answer is positive only above this line; at the "
    "thin lines, ReLU reaches 0.25, 0.5, 0.75 and 1."
)


def run():
    """Compute AND and OR with a perceptron, and the gradient of each activation."""
    corners = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])

    def answer(w, b, activation=nn.heaviside):
        params = {"w": w[:, None], "b": b[None]}, (), ()
        neuron = nn.perceptron(activation)
        return neuron.apply(params, ((), (), ()), corners, train=False)[0]

    def slope(activation):
        return jax.grad(lambda w: answer(w, either, activation).sum())(w)

    w, both, either = jnp.ones(2), jnp.array(-1.5), jnp.array(-0.5)
    numbers = {
        "step, b = −1.5 (AND)": answer(w, both),
        "step, b = −0.5 (OR)": answer(w, either),
        "ReLU, b = −0.5": answer(w, either, jax.nn.relu),
        "gradient of the step": slope(nn.heaviside),
        "gradient of ReLU": slope(jax.nn.relu),
    }
    return numbers, (corners, answer(w, both))


def draw(corners, fires):
    """Draw the two activations, and the line of the perceptron that computes AND."""
    left, right = panels(2)
    z = np.linspace(-2, 2, 401)
    left.plot(z, np.maximum(0, z), color=BLUE, label="ReLU")
    left.plot(z, 1.0 * (z > 0), color=RED, linestyle="--", label="step (Rosenblatt)")
    left.set(xticks=range(-2, 3), yticks=[0, 1, 2])
    left.legend(loc="upper left")
    label(left, "activations", "z = b + w · x", "y")

    ends = np.array([-0.4, 1.6])
    right.fill_between(ends, 1.5 - ends, 2.5, color=BLUE, alpha=0.12, linewidth=0)
    for level, width in ((0, 1.6), (0.25, 0.4), (0.5, 0.4), (0.75, 0.4), (1, 0.4)):
        right.plot(ends, 1.5 + level - ends, color=BLUE, linewidth=width)
    for corner, output in zip(corners, fires, strict=True):
        right.plot(*corner, "o", color=BLUE if output else RED, markersize=8)
        right.annotate(f"{output:g}", corner, (-11, -4), textcoords="offset points")
    right.annotate("b + w · x = 0", (0.1, 0.62), color=BLUE)
    arrow = {"arrowstyle": "->", "color": INK}
    right.annotate("", (1.45, 0.55), (1.2, 0.3), arrowprops=arrow)
    right.annotate("w", (1.47, 0.57))
    right.set(xlim=(-0.4, 1.6), ylim=(-0.4, 2), xticks=[0, 1], yticks=[0, 1])
    label(right, "AND", "x₁", "x₂")
    return left, right
