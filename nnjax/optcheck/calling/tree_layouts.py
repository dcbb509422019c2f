"""Find the layout of the parameters that `(init, update)` and `(init, update, get_params)` accept."""

from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from nnjax.optcheck.calling.adapter import Adapter, example_tree
from nnjax.optcheck.calling.kinds import StructureError
from nnjax.optcheck.calling.layouts import LAYOUTS, TREE, Layout
from nnjax.optcheck.calling.verdicts import has_shapes
from nnjax.optcheck.trace.deadline import TimeLimitError
from nnjax.types import PyTree

NDIM_TEXT = {0: "", 1: ", on arrays of at least 1 dimension", 2: ", on matrices only"}


def in_first_layout(adapter: Adapter, call: str) -> Adapter:
    """Return the adapter in the first layout in which it takes a step; the adapter itself if it fails in all of them.

    Args:
      adapter: an optimizer that takes pytrees of any structure, or that was written for one structure, such as a list.
      call: description of its call for the report, such as "update(grads, state)".
    """
    try:
        _updates(adapter, 1)
    except TimeLimitError:
        raise
    except StructureError:
        return adapter
    except Exception:  # it needs another layout, or fails in all of them
        return next(filter(_works, _candidates(adapter._replace(called=call))), adapter)
    return adapter


def _candidates(adapter: Adapter) -> Iterator[Adapter]:
    """Yield the adapter with each layout, first for leaves of all shapes, then for matrices only."""
    for ndim in (0, 1, 2):
        for layout in LAYOUTS:
            if ndim or layout is not TREE:
                for array in (jnp.array, np.array):
                    yield _with_layout(adapter, layout, ndim, array)


def _works(adapter: Adapter) -> bool:
    """Return True if an optimizer takes two steps, and returns updates with the shapes of the parameters."""
    try:
        return has_shapes(_updates(adapter, 2), example_tree(np.array, 0, ndim=adapter.ndim))
    except TimeLimitError:
        raise
    except Exception:
        return False


def _updates(adapter: Adapter, steps: int) -> PyTree:
    """Return the updates of the last of a few steps with random gradients."""
    params = example_tree(adapter.array, 0, ndim=adapter.ndim)
    state, updates = adapter.init(params), None
    with np.errstate(all="ignore"):
        for seed in range(1, steps + 1):
            updates, state = adapter.step(state, params, example_tree(adapter.array, seed, ndim=adapter.ndim))
    return updates


def _with_layout(adapter: Adapter, layout: Layout, ndim: int, array: Callable[..., Any]) -> Adapter:
    """Return an adapter for pytrees that passes parameters and gradients in a layout."""

    def init(params: PyTree) -> Any:
        return adapter.init(layout.pack(params)), params

    def step(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        updates, state = adapter.step(carry[0], layout.pack(params), layout.pack_grads(grads))
        return layout.unpack(updates, params), (state, carry[1])

    def params_of(carry: Any) -> PyTree:
        assert adapter.params_of is not None
        return layout.unpack(adapter.params_of(carry[0]), carry[1])

    on = f", on {layout.name}" if layout.name else ""
    return adapter._replace(
        init=init,
        step=step,
        params_of=None if adapter.params_of is None else params_of,
        eager=adapter.eager or layout.eager or array is np.array,
        called=f"{adapter.called}{on}{NDIM_TEXT[ndim]}",
        ndim=ndim,
        array=array,
    )
