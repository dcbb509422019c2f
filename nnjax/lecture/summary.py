"""Summary: all ideas in one network

A network is dot products and ReLUs in layers; softmax and a loss say how wrong it is;
back-propagation and mini-batches say in which direction to step, and Adam how far.
BatchNorm, dropout and ensembles make the result better and more certain. Here they all
together read handwritten digits that were not used for training.

    θ ← θ − λ Adam(∇ 1/B Σₙ loss(f(xₙ; θ), yₙ)),   n in the batch of size B
"""

import jax
import numpy as np

from nnjax import data, losses, metrics, nn, optim, train, uncertainty
from nnjax.lecture.style import BLUE, RED, label, panels

CAPTION = (
    "First: errors on the 359 test digits; each dot is one of eight networks, the line "
    "is their mean, the cross their ensemble. Second: the test digits that the last "
    "ensemble gets wrong, with its answer."
)


def run():
    """Train eight networks by each of three recipes; test them alone and together."""
    digits = data.load("digits")
    better = nn.mlp([64, 64], 10, norm="batch", dropout=0.1)
    recipes = {
        "one layer, plain descent": (nn.mlp([], 10), optim.sgd(0.1)),
        "+ two hidden layers": (nn.mlp([64, 64], 10), optim.sgd(0.1)),
        "+ Adam, BatchNorm, dropout": (better, optim.adam(0.003)),
    }
    errors, numbers = {}, {}
    for name, (net, optimizer) in recipes.items():
        run = train.Run(net, losses.cross_entropy, optimizer, batch_size=32)

        def logits(key, run=run):
            ts, _ = run.steps(run.init(key, digits.train), digits.train, 450)
            return run.predict(ts.params, ts.state, digits.test.x)

        alone = jax.jit(jax.vmap(logits))(jax.random.split(jax.random.key(0), 8))
        together = uncertainty.log_mean_probabilities(alone)
        wrong = [1 - metrics.accuracy(p, digits.test.y) for p in (*alone, together)]
        errors[name] = np.array(wrong)
        numbers[name] = f"{np.mean(wrong[:-1]):.1%} wrong, as an ensemble {wrong[-1]:.1%}"
    return numbers, (errors, digits.test, together)


def draw(errors, test, together):
    """Draw the errors of each recipe, and the digits that are still misread."""
    from matplotlib.figure import Figure

    (left,) = panels(1, height=2.9)
    for i, wrong in enumerate(errors.values()):
        *alone, ensemble = 100 * wrong
        places = i + np.linspace(-0.2, 0.2, 8)
        left.plot(places, alone, "o", color=BLUE, markersize=4, alpha=0.6)
        left.plot([i - 0.3, i + 0.3], 2 * [np.mean(alone)], color=BLUE)
        left.plot(i, ensemble, "x", color=RED, markersize=8, markeredgewidth=2)
    left.set_xticks(range(3), [name.replace(", ", ",\n") for name in errors])
    left.set_ylim(0, None)
    label(left, "three recipes", "", "test errors in %")

    digits = Figure(figsize=(3.4, 2.9), layout="constrained")
    answers = together.argmax(-1)
    wrong = np.flatnonzero(answers != test.y)
    for axes, i in zip(digits.subplots(3, 4).flat, wrong, strict=False):
        axes.imshow(test.x[i].reshape(8, 8), cmap="gray_r", interpolation="none")
        axes.set_title(f"{test.y[i]} read as {answers[i]}")
    for axes in digits.axes:
        axes.set_axis_off()
    return left, digits
