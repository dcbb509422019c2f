"""Adapt functions that run the whole training loop, `adam(grad, x0, …)`, through their gradient callback."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nnjax.optcheck.calling.adapter import Adapter, difference, example_tree
from nnjax.optcheck.calling.layouts import ARRAY, LIST, TREE, Layout
from nnjax.optcheck.calling.names import arguments_of
from nnjax.optcheck.trace.deadline import TimeLimitError
from nnjax.types import PyTree


class _Stop(BaseException):
    """Raised to end the loop when all recorded gradients are used."""


def drive(loop: Callable[..., Any], name: str) -> Adapter | None:
    """Return the adapter of a loop that takes a gradient function and parameters, or None for other functions.

    Both orders of the arguments are tried. Each step of the adapter reruns the loop from the start with one more
    gradient, so the step depends only on its state.

    Args:
      loop: `loop(grad, x0, …) -> x`; the first argument of the gradient function is the parameters.
      name: its name for the report.
    """
    arguments = [argument for argument in arguments_of(loop) or () if argument.required]
    if len(arguments) != 2:
        return None
    for gradient_first in (True, False):
        for layout in (ARRAY, TREE, LIST):
            adapter = _adapter(loop, name, layout, gradient_first)
            params, *grads = (example_tree(np.array, seed) for seed in range(3))
            try:
                state = adapter.init(params)
                for grad in grads:
                    updates, state = adapter.step(state, params, grad)
                if any(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(updates)):
                    return adapter
            except TimeLimitError:
                raise
            except Exception:  # this layout or order does not fit
                continue
    return None


def _adapter(loop: Callable[..., Any], name: str, layout: Layout, gradient_first: bool) -> Adapter:
    def points(start: PyTree, grads: list[PyTree]) -> PyTree:
        """Return the parameters after steps with these gradients."""
        latest: list[Any] = []

        def gradient(x: Any, *_: Any) -> Any:
            latest.append(x)
            if len(latest) > len(grads):
                raise _Stop
            return layout.pack_grads(grads[len(latest) - 1])

        x0 = layout.pack(jax.tree.map(np.array, start))
        with contextlib.suppress(_Stop):
            latest.append(loop(gradient, x0) if gradient_first else loop(x0, gradient))
        return jax.tree.map(np.array, layout.unpack(latest[-1], start))

    def step(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        start, history, before = carry
        history = [*history, jax.tree.map(np.array, grads)]
        after = points(start, history)
        return difference(after, before), (start, history, after)

    call = "(grad, x0)" if gradient_first else "(x0, grad)"
    on = f", on {layout.name}" if layout.name else ""
    return Adapter(
        name,
        "loop",
        init=lambda params: (jax.tree.map(np.array, params), [], jax.tree.map(np.array, params)),
        step=step,
        params_of=lambda carry: carry[2],
        eager=True,
        called=f"{name}{call}{on}; it runs the loop, and its gradient function returns the scripted gradients",
        array=np.array,
    )
