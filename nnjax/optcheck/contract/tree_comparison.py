"""Compare pytrees before and after a step, leaf by leaf: types, bits and values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.optcheck.contract.violations import Violation, attempt, make_violation
from nnjax.types import PyTree

RELATIVE = 1e-5  # allowed change relative to the largest update; reordered operations change less


def leaf_types(tree: PyTree, weak: bool = True) -> dict[str, str]:
    """Return the dtype and shape of each leaf, keyed by its path, and the structure of the tree under the key "".

    Args:
      tree: any pytree of arrays and numbers.
      weak: if True, return the types that jit sees (NumPy's float64 becomes float32), with weak types marked.
    """

    def describe(leaf: Any) -> str:
        leaf = attempt(lambda: jax.typeof(leaf)) if weak else leaf
        if not hasattr(leaf, "dtype"):
            return type(leaf).__name__
        return f"{leaf.dtype}{list(leaf.shape)}" + (" weakly typed" if weak and leaf.weak_type else "")

    return {path: describe(leaf) for path, leaf in named_leaves(tree)} | {"": str(jax.tree.structure(tree))}


def leaf_bits(tree: PyTree) -> dict[str, str]:
    """Return the bits of each leaf, keyed by its path, and the structure of the tree under the key ""."""

    def bits(leaf: Any) -> str:
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        return f"{array.dtype} {array.shape} {array.tobytes().hex()}"

    return {path: bits(leaf) for path, leaf in named_leaves(tree)} | {"": str(jax.tree.structure(tree))}


def changed_paths(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the paths at which two trees differ, or [""] if only the structure differs."""
    paths = [path for path in dict.fromkeys([*before, *after]) if path and before.get(path) != after.get(path)]
    return paths or [""] * (before[""] != after[""])


def compare_updates(
    mode: str, updates: list[PyTree], eager: list[PyTree], steps: int, relative: float = RELATIVE
) -> list[Violation]:
    """Return a list with a violation for the first update that differs from the eager one, or [] if none does.

    Args:
      mode: the transform under which the updates were computed, such as "jit".
      updates: the updates of all steps.
      eager: the updates computed without the transform.
      steps: the number of steps of a run. If the first step agrees and a later one differs, the transform has frozen a
        value that is not part of the state.
      relative: how much rounding may change updates, relative to the largest update.
    """
    sizes = [np.abs(to_float64(leaf)) for leaf in jax.tree.leaves(eager)]
    largest = max((float(np.max(size, initial=0, where=np.isfinite(size))) for size in sizes), default=0.0)
    # the absolute term allows for rounding in sums of N(0, 1) parameters that cancel
    bound = relative * largest + 8 * float(np.finfo(np.float32).eps)
    for k, (update, reference) in enumerate(zip(updates, eager, strict=False)):
        for (path, leaf), eager_leaf in zip(named_leaves(update), jax.tree.leaves(reference), strict=True):
            a, b = np.atleast_1d(to_float64(leaf), to_float64(eager_leaf))
            close = np.isclose(a, b, rtol=0, atol=bound, equal_nan=True)
            if not close.all():
                rule = "frozen under jit" if k % steps else mode
                got, expected = f"{a[~close][0]:.6g} at step {k % steps + 1} under {mode}", f"{b[~close][0]:.6g}"
                return [make_violation(rule, path, got, f"{expected}, as without {mode}")]
    return []


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """Return the paths and leaves of a tree."""
    return [(checks.path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def to_float64(leaf: Any) -> np.ndarray:
    """Return a leaf as a float64 array."""
    return np.asarray(leaf, np.float64)
