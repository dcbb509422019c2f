"""Support optimizers that take parameters in one layout only: a flat dict, a list, or one array."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.optcheck.trace.adapters import Adapter, adapt
from nnjax.optcheck.trace.gradient_script import at_step, gradient_script
from nnjax.optcheck.trace.kinds import method_of
from nnjax.types import PyTree

LAYOUTS = {"dict": "a flat dict", "list": "a list", "array": "one array"}


class ObjectInLayout(NamedTuple):
    """An object with `step` or `update` that takes parameters in a layout."""

    optimizer: Any
    layout: str

    def step(self, params: PyTree, grads: PyTree) -> PyTree | None:
        """Return the new parameters, or None if the object changes arrays in place."""
        inputs = to_layout(self.layout, params)
        result = method_of(self.optimizer)(inputs, to_layout(self.layout, grads))
        if result is None and self.layout != "array":
            return None
        return from_layout(self.layout, inputs if result is None else result, params)


def with_layout(adapter: Adapter, optimizer: Any) -> Adapter:
    """Return the adapter with the first layout in which it can take a step; unchanged if there is none.

    Args:
      adapter: the adapter that `adapt` returned.
      optimizer: the optimizer that it adapts.
    """
    if adapter.kind not in ("pair", "step", "object") or _can_step(adapter):
        return adapter
    for layout, description in LAYOUTS.items():
        if adapter.kind == "object":
            candidate = adapt(ObjectInLayout(optimizer, layout))
        else:
            candidate = _in_layout(adapter, layout)
        if _can_step(candidate):
            return candidate._replace(name=f"{adapter.name} on {description}")
    return adapter


def to_layout(layout: str, tree: PyTree) -> Any:
    """Return a tree in a layout."""
    leaves = jax.tree.leaves(tree)
    if layout == "array":
        xp = np if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp
        return xp.concatenate([leaf.reshape(-1) for leaf in leaves])
    if layout == "list":
        return leaves
    return {checks.path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def from_layout(layout: str, values: Any, like: PyTree) -> PyTree:
    """Return values in a layout as a tree with the structure of `like`."""
    leaves, treedef = jax.tree.flatten(like)
    if layout == "array":
        ends = np.cumsum([np.size(leaf) for leaf in leaves])
        pieces = [values[end - np.size(leaf) : end] for leaf, end in zip(leaves, ends, strict=True)]
        leaves = [piece.reshape(leaf.shape).astype(leaf.dtype) for piece, leaf in zip(pieces, leaves, strict=True)]
        return jax.tree.unflatten(treedef, leaves)
    names = [checks.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(like)]
    return jax.tree.unflatten(treedef, [values[name] for name in names] if layout == "dict" else list(values))


def _in_layout(adapter: Adapter, layout: str) -> Adapter:
    def step(state: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        updates, state = adapter.step(state, to_layout(layout, params), to_layout(layout, grads))
        return from_layout(layout, updates, params), state

    return adapter._replace(init=lambda params: adapter.init(to_layout(layout, params)), step=step)


def _can_step(adapter: Adapter) -> bool:
    """Return True if the adapter can take a step of the script."""
    script = gradient_script()
    params, grads = (jax.tree.map(adapter.array, at_step(tree, 0, "float32")) for tree in (script.params, script.grads))
    try:
        updates, _ = adapter.step(adapter.init(params), params, grads)
        return len(jax.tree.leaves(updates)) == len(jax.tree.leaves(params))
    except Exception:  # any error: if no layout helps, the first run raises it again
        return False
