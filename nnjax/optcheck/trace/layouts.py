"""Optimizers that take parameters in one layout only: a flat dict, a list, or one array."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.optcheck.trace.adapters import Candidate, adapt, method_of
from nnjax.optcheck.trace.gradient_script import at, script
from nnjax.types import PyTree

LAYOUTS = {"dict": "a flat dict", "list": "a list", "array": "one array"}


class Laid(NamedTuple):
    """An object with `step` or `update`, given parameters in its layout."""

    optimizer: Any
    layout: str

    def step(self, params: PyTree, grads: PyTree) -> PyTree | None:
        """The new parameters, or None where arrays are changed in place."""
        given = put(self.layout, params)
        found = method_of(self.optimizer)(given, put(self.layout, grads))
        if found is None and self.layout != "array":
            return None
        return back(self.layout, given if found is None else found, params)


def fitted(candidate: Candidate, optimizer: Any) -> Candidate:
    """The candidate in the first layout in which it makes a step; as it is where it does in none.

    Args:
      candidate: as `adapt` made it.
      optimizer: what it was made of.
    """
    if candidate.kind not in ("pair", "step", "object") or _steps(candidate):
        return candidate
    for layout, said in LAYOUTS.items():
        other = adapt(Laid(optimizer, layout)) if candidate.kind == "object" else _within(candidate, layout)
        if _steps(other):
            return other._replace(name=f"{candidate.name}, given {said}")
    return candidate


def put(layout: str, tree: PyTree) -> Any:
    """A tree in a layout."""
    leaves = jax.tree.leaves(tree)
    if layout == "array":
        xp = np if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp
        return xp.concatenate([leaf.reshape(-1) for leaf in leaves])
    if layout == "list":
        return leaves
    return {checks.path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def back(layout: str, laid: Any, like: PyTree) -> PyTree:
    """A tree from a layout."""
    leaves, treedef = jax.tree.flatten(like)
    if layout == "array":
        ends = np.cumsum([np.size(leaf) for leaf in leaves])
        pieces = [laid[end - np.size(leaf) : end] for leaf, end in zip(leaves, ends, strict=True)]
        parts = [piece.reshape(leaf.shape).astype(leaf.dtype) for piece, leaf in zip(pieces, leaves, strict=True)]
        return jax.tree.unflatten(treedef, parts)
    names = [checks.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(like)]
    return jax.tree.unflatten(treedef, [laid[name] for name in names] if layout == "dict" else list(laid))


def _within(candidate: Candidate, layout: str) -> Candidate:
    def step(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        updates, carry = candidate.step(carry, put(layout, params), put(layout, grads))
        return back(layout, updates, params), carry

    return candidate._replace(init=lambda params: candidate.init(put(layout, params)), step=step)


def _steps(candidate: Candidate) -> bool:
    """Whether it makes a step of the script."""
    given = script()
    array = jnp.asarray if candidate.pure else np.array
    params, grads = (jax.tree.map(array, at(tree, 0, "float32")) for tree in (given.params, given.grads))
    try:
        updates, _ = candidate.step(candidate.init(params), params, grads)
        return len(jax.tree.leaves(updates)) == len(jax.tree.leaves(params))
    except Exception:  # whatever it is, it is raised again where somebody reads it
        return False
