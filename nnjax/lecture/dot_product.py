"""Dot product: multiply, then add

A neuron has one weight for each of its inputs; it multiplies each input by its weight and
adds the products. Inputs with the same sign as their weights raise the sum, inputs with the
opposite sign lower it. The dot product therefore measures how far an input points in the
direction of the weights: it is largest in that direction, and zero at a right angle to it.

    w · x = w₁x₁ + w₂x₂ + … + wₙxₙ = |w| |x| cos α
"""

import jax.numpy as jnp
import numpy as np

from nnjax import nn
from nnjax.lecture.style import BLUE, GREY, RED, label, minus, panels, signs

CAPTION = (
    "First: each bar is a product wᵢxᵢ and starts where the previous one ends; the last "
    "one ends at the dot product. Second: the dot product of a rotating input of length "
    "1 with the weights (2, 1) is a cosine."
)


def run():
    """Compute a dot product by hand and with a layer, then rotate an input."""
    x = jnp.array([2.0, 1.0, 3.0, 1.5])
    w = jnp.array([1.0, -1.0, 0.5, 1.0])
    products = [x_i * w_i for x_i, w_i in zip(x, w, strict=True)]
    neuron = nn.dense(1, bias=False)
    y, _ = neuron.apply({"w": w[:, None]}, (), x[None], train=False)

    angles = jnp.radians(jnp.arange(361.0))
    circle = jnp.stack([jnp.cos(angles), jnp.sin(angles)], -1)
    turned, _ = neuron.apply({"w": jnp.array([[2.0], [1.0]])}, (), circle, train=False)
    numbers = {
        "products": products,
        "their sum": sum(products),
        "nn.dense(1)": y[0, 0],
        "direction of w = (2, 1)": f"{jnp.degrees(jnp.arctan2(1.0, 2.0)):.1f}°",
        "w · x is largest at": f"{turned.argmax()}°",
    }
    return numbers, (x, w, turned[:, 0])


def draw(x, w, turned):
    """Draw the products as a running sum, and the dot product against the angle."""
    left, right = panels(2)
    products = w * x
    ends = products.cumsum()
    left.bar(range(4), products, 0.6, ends - products, color=signs(products))
    left.bar(4, ends[-1], 0.6, color=GREY)
    for i, end in enumerate(ends):
        left.plot([i + 0.3, i + 0.7], [end, end], color=GREY, linewidth=0.6)
    names = [f"{minus(a)} · {minus(b)}" for a, b in zip(w, x, strict=True)]
    left.set_xticks(range(5), [*names, "sum"])
    label(left, "w · x, product by product", "", "running sum")

    right.axhline(0, color=GREY, linewidth=0.6)
    right.axvline(np.degrees(np.arctan2(1, 2)), color=RED, linestyle="--", linewidth=1)
    right.plot(turned, color=BLUE)
    right.annotate("direction of w", (32, -2), color=RED)
    right.set_xticks(range(0, 361, 90))
    label(right, "a rotating input", "angle in degrees", "w · x")
    return left, right
