"""Universal approximation: width draws any curve

A hidden neuron with ReLU is a line with a bend, and a sum of N of them is a chain of
straight pieces with N bends. With bends at equal distances h it can follow any smooth
function, with an error of at most h² max |f″| / 8: halve the distance, quarter the error.
Training finds such networks too, and without ReLU no width helps.

    f(x) ≈ Σₖ aₖ ReLU(x − xₖ) + c
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import losses, nn, optim, train
from nnjax.lecture.style import BLUE, GREEN, GREY, INK, PURPLE, RED, label, log_axis, panels

CAPTION = (
    "First: sin x, and networks built by hand with 4, 8 and 16 hidden neurons. Second: "
    "the largest error of the networks built by hand, and of trained ones with and "
    "without ReLU (the median of five networks for each width)."
)


def run():
    """Build networks of growing width by hand, and train networks of the same widths."""
    x = jnp.linspace(0, 2 * jnp.pi, 257)[:, None]
    y = jnp.sin(x)
    widths = np.array([1, 2, 4, 8, 16, 32])

    def build(width):  # at each knot, another neuron becomes active and changes the slope
        knots = np.linspace(0, 2 * np.pi, width + 1, dtype=np.float32)
        slopes = np.diff(np.sin(knots)) / np.diff(knots)
        hidden = {"w": np.ones((1, width), np.float32), "b": -knots[:-1]}
        output = {
            "w": np.diff(slopes, prepend=0)[:, None],
            "b": np.zeros(1, np.float32),
        }
        params = (), hidden, (), output
        return nn.mlp([width], 1).apply(params, ((),) * 4, x, train=False)[0]

    def training_error(width, key, activation):
        # One program for all widths: it uses the first `width` of 32 neurons
        net = nn.mlp([32], 1, widths=[width], activation=activation)
        run = train.Run(net, losses.squared_error, optim.adam(0.02), batch_size=None)
        examples = x / 3 - 1, y
        ts, _ = run.steps(run.init(key, examples), examples, 1000)
        return abs(run.predict(ts.params, ts.state, examples[0]) - y).max()

    @partial(jax.jit, static_argnums=0)
    def trained(activation):  # the median of five networks for each width
        error = partial(training_error, activation=activation)
        keys = jax.random.split(jax.random.key(0), 5)
        errors = jax.vmap(jax.vmap(error, (None, 0)), (0, None))(widths, keys)
        return jnp.median(errors, -1)

    built = [build(int(width)) for width in widths]
    numbers = {
        "width": widths,
        "bound h²/8": (2 * np.pi / widths) ** 2 / 8,
        "built by hand": [abs(net - y).max() for net in built],
        "trained with ReLU": trained(jax.nn.relu),
        "trained without ReLU": trained(lambda h: h),
    }
    return numbers, (x, built, numbers)


def draw(x, built, numbers):
    """Draw the networks built by hand, and the errors against the width."""
    left, right = panels(2)
    left.plot(x, np.sin(x), "--", color=INK, linewidth=1, label="sin x")
    for net, width, colour in zip(built[2:], (4, 8, 16), (RED, GREEN, BLUE), strict=False):
        left.plot(x, net, color=colour, linewidth=1.2, label=f"{width} neurons")
    left.legend()
    label(left, "networks built by hand", "x", "y")

    widths, bound, *errors = numbers.values()
    for error, name, colour in zip(
        errors, [*numbers][2:], (PURPLE, BLUE, RED), strict=True
    ):
        right.plot(widths, error, "o-", color=colour, markersize=4, label=name)
    right.plot(widths, bound, "--", color=GREY, linewidth=0.8)
    right.annotate("h²/8", (1.4, 3.5), color=GREY)
    log_axis(right.yaxis)
    right.set_xscale("log", base=2)
    right.set_xticks(widths, widths)
    right.legend()
    label(right, "error against the width", "hidden neurons", "largest error")
    return left, right
