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
    x = jnp.linspace(-jnp.pi, jnp.pi, 257)[:, None]
    y = jnp.sin(x)
    widths = np.array([1, 2, 4, 8, 16, 32])

    def build(width):  # at each knot, another neuron becomes active and changes the slope
        knots = np.linspace(-np.pi, np.pi, width + 1, dtype=np.float32)
        slopes = np.diff(np.sin(knots)) / np.diff(knots)
        bends = np.diff(slopes, prepend=0)[:, None]
        hidden = {"w": np.ones((1, width), np.float32), "b": -knots[:-1]}
        params = (), hidden, (), {"w": bends, "b": np.zeros(1, np.float32)}
        return nn.mlp([width], 1).apply(params, ((),) * 4, x, train=False)[0]

    def train_error(activation, width, key):  # uses the first `width` of 32 neurons
        net = nn.mlp([32], 1, widths=[width], activation=activation)
        run = train.Run(net, losses.squared_error, optim.adam(0.02), batch_size=None)
        ts, _ = run.steps(run.init(key, (x, y)), (x, y), 1000)
        return abs(run.predict(ts.params, ts.state, x) - y).max()

    @partial(jax.jit, static_argnums=0)
    def median_errors(activation):  # five networks for each width, all in one program
        error = jax.vmap(partial(train_error, activation), (None, 0))
        keys = jax.random.split(jax.random.key(0), 5)
        return jnp.median(jax.vmap(error, (0, None))(widths, keys), -1)

    built = [build(int(width)) for width in widths]
    numbers = {
        "width": widths,
        "bound h²/8": (2 * np.pi / widths) ** 2 / 8,
        "built by hand": [abs(net - y).max() for net in built],
        "trained with ReLU": median_errors(jax.nn.relu),
        "trained without ReLU": median_errors(lambda h: h),
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
