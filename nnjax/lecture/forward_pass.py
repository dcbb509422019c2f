"""Layers: a network is a chain of functions

A layer is a vector of perceptrons that share their input, and its outputs are the inputs of
the next layer. The forward pass computes one layer after the other, until the last one
gives the prediction. The parameters are all weights and biases together, and the network is
one function of parameters and input.

    h₁ = ReLU(W₁ x + b₁)
    h₂ = ReLU(W₂ h₁ + b₂)
    y  = W₃ h₂ + b₃
"""

import jax
import jax.numpy as jnp

from nnjax import nn
from nnjax.lecture.diagram import draw_network
from nnjax.lecture.style import panels

CAPTION = (
    "A forward pass from left to right. Blue circles and lines are positive values and "
    "weights, red ones negative; larger circles and thicker lines mean larger values. "
    "Empty circles are neurons whose ReLU returned zero."
)


def run():
    """Apply a network with two hidden layers, and compute its output by hand."""
    net = nn.mlp([5, 4], 2)
    x = jnp.array([[1.0, -0.5, 2.0]])
    params, state = jax.jit(net.init)(jax.random.key(3), x)
    y, _ = net.apply(params, state, x, train=False)

    first, second, last = (p for p in params if p)  # the layers that have parameters
    h1 = jax.nn.relu(x @ first["w"] + first["b"][None])
    h2 = jax.nn.relu(h1 @ second["w"] + second["b"][None])
    by_hand = h2 @ last["w"] + last["b"][None]
    numbers = {"x": x, "h₁": h1, "h₂": h2, "y by hand": by_hand, "y of the network": y}
    numbers["parameters"] = sum(p.size for p in jax.tree.leaves(params))
    return numbers, ([x, h1, h2, y], [first["w"], second["w"], last["w"]])


def draw(values, weights):
    """Draw the network with its values and weights."""
    (axes,) = panels(1, width=4.8, height=2.7)
    draw_network(axes, [v[0] for v in values], weights, names=["x", "h₁", "h₂", "y"])
    return (axes,)
