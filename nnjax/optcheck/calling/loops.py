"""Adapt functions that run the whole training loop, `adam(grad, x0, …)`, through their gradient callback."""

import inspect
import traceback
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nnjax.optcheck.calling.adapter import Adapter, difference, example_tree
from nnjax.optcheck.calling.layouts import ARRAY, DICT, LAYERS, LIST, NUMBERED, PAIRS, TREE, Layout
from nnjax.optcheck.calling.names import arguments_of
from nnjax.optcheck.trace.deadline import TimeLimitError
from nnjax.types import PyTree


class _Stop(BaseException):
    """Raised to end the loop when all recorded gradients are used."""


def drive(loop: Callable[..., Any], name: str) -> Adapter | None:
    """Return the adapter of a loop that takes a gradient function and parameters, or None for other functions.

    Both orders of the arguments are tried. A generator of parameters may take the gradient function too, or receive the
    gradients of the parameters that it yields. Each step of the adapter reruns the loop from the start with one more
    gradient, so the step depends only on its state.

    Args:
      loop: `loop(grad, x0, …) -> x`; the first argument of the gradient function is the parameters.
      name: its name for the report.
    """
    arguments = [argument for argument in arguments_of(loop) or () if argument.required]
    sends = len(arguments) == 1 and inspect.isgeneratorfunction(loop)
    if not sends and len(arguments) != 2:
        return None
    loop = _loop_of(loop) if sends else loop
    for gradient_first in (True,) if sends else (True, False):
        for layout in (ARRAY, TREE, DICT, LIST, PAIRS, LAYERS, NUMBERED):
            adapter = _adapter(loop, name, layout, gradient_first=gradient_first, sends=sends)
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


def _loop_of(generator: Callable[..., Any]) -> Callable[..., Any]:
    """Return a loop that sends gradients to a generator, `gradients = yield parameters`."""

    def loop(gradient: Callable[..., Any], x: Any) -> None:
        iterator = generator(x)
        new = next(iterator)
        while True:
            x = x if new is None else new  # the first yield may have no value
            new = iterator.send(gradient(x))

    return loop


def _adapter(
    loop: Callable[..., Any], name: str, layout: Layout, *, gradient_first: bool, sends: bool = False
) -> Adapter:
    def points(start: PyTree, grads: list[PyTree]) -> tuple[PyTree, list[dict[str, Any]]]:
        """Return the parameters after steps with these gradients, and the variables of the loop."""
        x0 = layout.pack(jax.tree.map(np.array, start))
        latest, remaining = x0, iter(grads)

        def gradient(x: Any, *_: Any) -> Any:
            nonlocal latest
            latest = x
            grad = next(remaining, None)
            if grad is None:
                raise _Stop
            return layout.pack_grads(grad)

        variables: list[dict[str, Any]] = []
        try:
            result = loop(gradient, x0) if gradient_first else loop(x0, gradient)
            for x in result if inspect.isgenerator(result) else [result]:
                latest = x
        except _Stop as stop:
            variables = [dict(frame.f_locals) for frame, _ in traceback.walk_tb(stop.__traceback__)][1:-1]
        return jax.tree.map(np.array, layout.unpack(latest, start)), variables

    def step(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        start, history, before, _ = carry
        history = [*history, jax.tree.map(np.array, grads)]
        after, variables = points(start, history)
        return difference(after, before), (start, history, after, variables)

    call = "(grad, x0)" if gradient_first else "(x0, grad)"
    how = "; it runs the loop, and its gradient function returns the scripted gradients"
    if sends:
        call, how = "(x0)", "; it yields parameters, and receives their gradients"
    on = f", on {layout.name}" if layout.name else ""
    return Adapter(
        name,
        "loop",
        init=lambda params: (jax.tree.map(np.array, params), [], jax.tree.map(np.array, params), []),
        step=step,
        params_of=lambda carry: carry[2],
        eager=True,
        called=f"{name}{call}{on}{how}",
        array=np.array,
    )
