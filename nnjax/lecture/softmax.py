"""Softmax: numbers become probabilities

The last layer returns one number for each class, and softmax turns them into probabilities,
which are positive and sum to 1. Only differences count, so the largest number can be
subtracted first and nothing overflows. Dividing the numbers by a small temperature T gives
nearly all probability to the largest one; a large T makes the probabilities more uniform.

    softmax(x)ᵢ = exp(xᵢ / T) / Σⱼ exp(xⱼ / T)
"""

import jax.numpy as jnp
import numpy as np

from nnjax import nn
from nnjax.lecture.style import BLUE, GREEN, GREY, PURPLE, RED, label, minus, panels

CAPTION = (
    "First: the same four numbers at three temperatures. Second: each probability "
    "against the temperature; at low temperatures the largest number has nearly all "
    "probability, at high ones all numbers have nearly the same."
)


def run():
    """Apply softmax at several temperatures, and to numbers whose exp overflows."""
    x = jnp.array([2.0, 1.0, 0.0, -1.0])
    bars = {T: nn.softmax(x / T) for T in (0.25, 1.0, 4.0)}
    temperatures = jnp.geomspace(0.1, 10, 61)
    curves = nn.softmax(x[None] / temperatures[:, None])
    numbers = {"x": x}
    numbers |= {f"T = {T:g}": p for T, p in bars.items()}
    numbers["x + 10 000"] = nn.softmax(10_000 + x)  # exp(10 000) is infinite in float32
    numbers["sums"] = [curves.sum(-1).min(), curves.sum(-1).max()]
    return numbers, (x, bars, temperatures, curves)


def draw(x, bars, temperatures, curves):
    """Draw the probabilities at three temperatures, and against the temperature."""
    left, right = panels(2)
    for i, (T, p) in enumerate(bars.items()):
        places, colour = np.arange(4) + 0.27 * (i - 1), (BLUE, GREEN, RED)[i]
        left.bar(places, p, 0.25, color=colour, label=f"T = {T:g}")
    left.set_xticks(range(4), [minus(number) for number in x])
    left.set_ylim(0, 1.02)
    left.legend()
    label(left, "three temperatures", "xᵢ", "probability")

    right.axhline(1 / 4, color=GREY, linewidth=0.6, linestyle="--")
    for i, colour in enumerate((BLUE, GREEN, RED, PURPLE)):
        right.plot(temperatures, curves[:, i], color=colour, label=f"x = {minus(x[i])}")
    right.set_xscale("log")
    right.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
    right.set_ylim(0, 1.02)
    right.legend()
    label(right, "from sharp to uniform", "temperature T", "probability")
    return left, right
