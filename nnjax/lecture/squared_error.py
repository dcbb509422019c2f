"""Squared error: how wrong is the network?

Learning needs one number that says how wrong a prediction is. The squared error is the
sum of the squared differences between prediction and target: it is zero only for an exact
prediction, and a difference twice as large costs four times as much. The loss of a network
is the mean of this error over all examples, a function of the parameters alone.

    loss(θ) = 1/N Σₙ |f(xₙ; θ) − yₙ|²
"""

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import losses, nn
from nnjax.lecture.style import BLUE, GREY, INK, RED, label, panels, rectangle

CAPTION = (
    "First and second: five points, a line, and the squares whose mean area is the "
    "loss. Third: the loss of every slope; the two dots are the two lines, and the "
    "second one is the best."
)


def run():
    """Compute the loss of every line through the origin, for five points."""
    x = jnp.array([[0.5], [1.0], [1.5], [2.0], [2.5]])
    y = jnp.array([[0.8], [0.5], [1.6], [1.3], [2.1]])
    net = nn.dense(1, bias=False)

    def loss(slope):
        prediction, _ = net.apply({"w": slope[None, None]}, (), x, train=False)
        errors = losses.squared_error(prediction, y)  # one for each example
        return errors.mean()

    slopes = jnp.linspace(-0.1, 1.7, 181)
    curve = jax.vmap(loss)(slopes)
    numbers = {
        "loss at slope 0.3": loss(jnp.array(0.3)),
        "lowest loss": curve.min(),
        "at slope": slopes[curve.argmin()],
        "where the derivative is zero": (x * y).sum() / (x * x).sum(),
    }
    return numbers, (x, y, slopes, curve)


def draw(x, y, slopes, curve):
    """Draw the squares of two lines, and the loss against the slope."""
    left, middle, right = panels(3, width=2.3, height=2.5)
    for axes, slope, colour in ((left, 0.3, RED), (middle, slopes[curve.argmin()], BLUE)):
        for a, b in zip(x[:, 0], y[:, 0], strict=True):
            side, corner = abs(slope * a - b), (a, min(slope * a, b))
            rectangle(axes, corner, side, side, color=colour, alpha=0.25, linewidth=0)
        axes.plot([0, 3], [0, 3 * slope], color=colour)
        axes.plot(x, y, "o", color=INK, markersize=4)
        axes.set(xlim=(0, 3.2), ylim=(0, 3.2), aspect="equal", xticks=range(4))
        loss = np.interp(slope, slopes, curve)
        right.plot(slope, loss, "o", color=colour, markersize=7, zorder=3)
        label(axes, f"slope {slope:.2g}, loss {loss:.2g}", "x", "y")
    right.plot(slopes, curve, color=GREY)
    right.set_ylim(0, None)
    label(right, "the loss of every slope", "slope", "loss")
    return left, middle, right
