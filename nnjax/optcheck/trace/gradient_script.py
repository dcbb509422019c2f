"""Create scripted gradients with many magnitudes and patterns over time, in leaves of several shapes.

Both optimizers receive the same gradients. These do not depend on the updates, so rounding errors do not grow as they
do in training. A second script, with other gradients and more steps, decides whether a rule that was found is right.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from nnjax import checks
from nnjax.optcheck.rules.update_rule import Inputs
from nnjax.types import PyTree

STEPS = 24
MORE_STEPS, QUIET = 60, 1e-7  # steps of the second script, and the factor of the gradients in its quiet steps
MAGNITUDES = np.logspace(-14, 3, 18)  # a misplaced ε shows only at gradients of similar size
SMALLEST = 1e-16  # smallest nonzero gradient; processors flush the float32 squares of numbers below 1e-19 to zero

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
SHAPES: dict[str, Any] = {
    "conv": {"kernel": (2, 2, 6, 6)},
    "dense": {"b": (SIZE,), "w": (9, 16)},
    "norm": {"bias": (SIZE,), "scale": (SIZE,)},
}


class GradientScript(NamedTuple):
    """Gradients and parameters of all steps. The elements of all leaves are concatenated."""

    grads: PyTree  # leaves (steps, ...)
    params: PyTree  # leaves (steps, ...), before each step
    rates: np.ndarray  # (steps,), learning rate of each step relative to the hyper-parameter
    leaf: np.ndarray  # (elements,), index of the leaf
    leaf_names: list[str]
    shapes: list[tuple[int, ...]]  # shapes of the leaves, without the axis of steps
    pattern: np.ndarray  # (elements,), index into PATTERNS
    magnitude: np.ndarray  # (elements,), scale of the pattern, without the spread


def gradient_script(
    seed: int = 0, *, scheduled: bool = False, ndim: int = 0, steps: int = STEPS, spread: float = 0.0
) -> GradientScript:
    """Return the gradients and parameters of all steps.

    Under the key "zero", all parameters are 0, so that new minus old parameters loses no digits to cancellation. Under
    "normal", they are drawn from N(0, 1).

    Args:
      seed: seed of the random pattern, the signs, the parameters and the order of elements within leaves.
      scheduled: if True, each step has a random learning rate between 0.2 and 1 times the hyper-parameter.
      ndim: minimum number of dimensions of a leaf; 2 makes every leaf a matrix. The number of elements stays the same.
      steps: number of steps.
      spread: magnitudes are multiplied by powers of ten with exponents up to ±spread.
    """
    rng = np.random.default_rng(seed)
    k = np.arange(steps)
    tall = {"dense": SHAPES["dense"] | {"w": SHAPES["dense"]["w"][::-1]}, "temperature": ()}
    shapes: PyTree = {"zero": SHAPES, "normal": SHAPES | tall}  # Muon's factor differs for wide and tall matrices
    shapes = jax.tree.map(lambda shape: _with_ndim(shape, ndim), shapes, is_leaf=lambda node: isinstance(node, tuple))
    paths, treedef = jax.tree_util.tree_flatten_with_path(shapes, is_leaf=lambda node: isinstance(node, tuple))
    grads, params, patterns, magnitudes = [], [], [], []
    for path, shape in paths:
        size = int(np.prod(shape))
        cells = (
            rng.permutation(SIZE)[:size] if size > 1 else np.array([4 * len(MAGNITUDES) + 14])
        )  # a single element gets the random pattern
        pattern, magnitude = cells // len(MAGNITUDES), MAGNITUDES[cells % len(MAGNITUDES)]
        signs = rng.choice([-1.0, 1.0], size)
        scale = magnitude * 10 ** rng.uniform(-spread, spread, size) if spread else magnitude
        g = np.stack([list(PATTERNS.values())[i](k, rng) for i in pattern], axis=1) * scale * signs
        g = _floor(g)
        p = np.zeros((steps, size)) if path[0].key == "zero" else rng.normal(size=(steps, size))
        if path[1].key == "conv":
            p[3::4] = _orthogonal(p[3::4], g[3::4], shape[0])
        grads.append(g.reshape(steps, *shape))
        params.append(p.reshape(steps, *shape))
        patterns.append(pattern)
        magnitudes.append(magnitude)
    return GradientScript(
        grads=jax.tree.unflatten(treedef, grads),
        params=jax.tree.unflatten(treedef, params),
        rates=rng.uniform(0.2, 1.0, steps) if scheduled else np.ones(steps),
        leaf=np.repeat(np.arange(len(paths)), [pattern.size for pattern in patterns]),
        leaf_names=[checks.path_name(path) for path, _ in paths],
        shapes=[shape for _, shape in paths],
        pattern=np.concatenate(patterns),
        magnitude=np.concatenate(magnitudes),
    )


def second_script(*, scheduled: bool = False, ndim: int = 0) -> GradientScript:
    """Return a script with other gradients, magnitudes, parameters and more steps than the default one.

    In some steps all gradients are small, so that a norm by which they are clipped is below its bound.

    Args:
      scheduled: see `gradient_script`.
      ndim: see `gradient_script`.
    """
    script = gradient_script(2, scheduled=scheduled, ndim=ndim, steps=MORE_STEPS, spread=0.5)
    factors = np.where(np.arange(MORE_STEPS) % 10 == 7, QUIET, 1.0)
    return script._replace(grads=jax.tree.map(lambda leaf: _floor((leaf.T * factors).T), script.grads))


def _floor(g: np.ndarray) -> np.ndarray:
    """Return gradients that are zero or at least `SMALLEST`."""
    return np.where((g != 0) & (np.abs(g) < SMALLEST), np.sign(g) * SMALLEST, g)


def _orthogonal(p: np.ndarray, g: np.ndarray, rows: int) -> np.ndarray:
    """Make the rows of parameters (steps, elements) orthogonal to the gradient's rows, so that AdamP projects."""
    rows_p, rows_g = (array.reshape(len(array), rows, -1) for array in (p, g))
    squares = (rows_g**2).sum(-1, keepdims=True)
    share = (rows_p * rows_g).sum(-1, keepdims=True) / np.where(squares == 0, 1.0, squares)
    return (rows_p - share * rows_g).reshape(p.shape)


def _with_ndim(shape: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    if len(shape) >= ndim and (ndim < 2 or len(shape) == 2):
        return shape
    side = round(float(np.prod(shape)) ** (1 / ndim))
    return (side,) * ndim


def _rows(shapes: list[tuple[int, ...]]) -> np.ndarray:
    """Return for each element the index of its row, along the first axis of the leaf; -1 in vectors and scalars."""
    rows, count = [], 0
    for shape in shapes:
        size, is_matrix = int(np.prod(shape)), len(shape) > 1
        rows.append(count + np.arange(size) // (size // shape[0]) if is_matrix else np.full(size, -1))
        count += shape[0] if is_matrix else 0
    return np.concatenate(rows)


def flatten(tree: PyTree) -> np.ndarray:
    """Concatenate leaves (steps, ...) into one float64 array (steps, elements)."""
    return np.concatenate(
        [np.asarray(leaf, np.float64).reshape(len(leaf), -1) for leaf in jax.tree.leaves(tree)], axis=1
    )


def unflatten(array: np.ndarray, like: PyTree) -> PyTree:
    """Split an array (steps, elements) into leaves with the shapes of `like`, the inverse of `flatten`."""
    leaves, treedef = jax.tree.flatten(like)
    ends = np.cumsum([leaf[0].size for leaf in leaves])[:-1]
    pieces = zip(np.split(array, ends, axis=1), leaves, strict=True)
    return jax.tree.unflatten(treedef, [piece.reshape(leaf.shape) for piece, leaf in pieces])


def at_step(tree: PyTree, step: int, dtype: Any) -> PyTree:
    """Return the values at one step, cast to a dtype."""
    return jax.tree.map(lambda leaf: np.asarray(leaf[step], dtype), tree)


def rule_inputs(script: GradientScript) -> Inputs:
    """Return the inputs of update rules for a script."""
    return Inputs(
        grads=flatten(script.grads),
        params=flatten(script.params),
        rates=script.rates,
        leaf=script.leaf,
        leaf_count=len(script.leaf_names),
        row=_rows(script.shapes),
        shapes=tuple(script.shapes),
    )
