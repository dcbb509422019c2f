"""What both optimizers are given: scripted gradients of every magnitude, in every pattern of time, in many leaves.

The script does not depend on the updates (it is open loop): a rounding error stays one, which training would amplify.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from nnjax import checks
from nnjax.optcheck.rules.update_rule import Seen
from nnjax.types import PyTree

STEPS = 24
MAGNITUDES = np.logspace(-14, 3, 18)  # in one leaf: an ε in the wrong place shows only where gradients are as small
SMALLEST = 1e-16  # but for zero; float32 on processors flushes squares of less than 1e-19 to zero

PATTERNS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "constant": lambda k, rng: np.ones(len(k)),
    "impulse at the first step": lambda k, rng: (k == 0) * 1.0,
    "impulse at the fourth step": lambda k, rng: (k == 3) * 1.0,
    "alternating": lambda k, rng: (-1.0) ** k,
    "random": lambda k, rng: rng.normal(size=len(k)),
    "ramp": lambda k, rng: (k + 1) / len(k),
    "late start": lambda k, rng: (k >= 6) * 1.0,
    "decaying": lambda k, rng: 0.7**k,
}
SIZE = len(MAGNITUDES) * len(PATTERNS)
SHAPES = {
    "conv": {"kernel": (2, 2, 6, 6)},
    "dense": {"b": (SIZE,), "w": (12, 12)},
    "norm": {"bias": (SIZE,), "scale": (SIZE,)},
}


class Script(NamedTuple):
    """Gradients and parameters of all steps, and what each element is."""

    grads: PyTree  # (steps, ...) of each leaf
    params: PyTree  # the same, before each step
    rates: np.ndarray  # (steps,), the learning rate of each step over the hyper-parameter
    pattern: list[np.ndarray]  # (elements,) of each leaf: the number of the pattern
    magnitude: list[np.ndarray]  # (elements,) of each leaf


def script(seed: int = 0, *, scheduled: bool = False) -> Script:
    """The script: half of the leaves have parameters that are zero, where nothing cancels; half N(0, 1).

    Args:
      seed: of the random pattern, the signs, the parameters and the order within leaves.
      scheduled: with another learning rate for each step, between .2 and 1 of the hyper-parameter.
    """
    rng = np.random.default_rng(seed)
    k = np.arange(STEPS)
    shapes = {"zero": SHAPES, "normal": SHAPES | {"temperature": ()}}
    paths, treedef = jax.tree_util.tree_flatten_with_path(shapes, is_leaf=lambda node: isinstance(node, tuple))
    grads, params, pattern, magnitude = [], [], [], []
    for path, shape in paths:
        size = int(np.prod(shape))
        which = rng.permutation(SIZE)[:size] if size > 1 else np.array([4 * len(MAGNITUDES) + 14])  # N(0, 1)
        pattern.append(which // len(MAGNITUDES))
        magnitude.append(MAGNITUDES[which % len(MAGNITUDES)])
        signs = rng.choice([-1.0, 1.0], size)
        shapes_in_time = [list(PATTERNS.values())[i](k, rng) for i in pattern[-1]]
        g = np.stack(shapes_in_time, axis=1) * magnitude[-1] * signs
        g = np.where((g != 0) & (np.abs(g) < SMALLEST), np.sign(g) * SMALLEST, g)
        grads.append(g.reshape(STEPS, *shape))
        p = np.zeros((STEPS, *shape)) if path[0].key == "zero" else rng.normal(size=(STEPS, *shape))
        params.append(p)
    rates = rng.uniform(0.2, 1.0, STEPS) if scheduled else np.ones(STEPS)
    return Script(jax.tree.unflatten(treedef, grads), jax.tree.unflatten(treedef, params), rates, pattern, magnitude)


def names(tree: PyTree) -> list[str]:
    """The paths of the leaves."""
    return [checks.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def flat(tree: PyTree) -> np.ndarray:
    """(steps, elements) in float64, of leaves (steps, ...)."""
    return np.concatenate([np.asarray(leaf, np.float64).reshape(STEPS, -1) for leaf in jax.tree.leaves(tree)], axis=1)


def at(tree: PyTree, step: int, dtype: Any) -> PyTree:
    """What is given at a step."""
    return jax.tree.map(lambda leaf: np.asarray(leaf[step], dtype), tree)


def seen(given: Script) -> Seen:
    """The script as forms take it."""
    sizes = [leaf[0].size for leaf in jax.tree.leaves(given.grads)]
    return Seen(flat(given.grads), flat(given.params), given.rates, np.repeat(np.arange(len(sizes)), sizes), len(sizes))
