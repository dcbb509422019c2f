"""Record the arrays that an optimizer stores between steps."""

import functools
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import jax
import numpy as np

from nnjax.optcheck.calling.adapter import Adapter
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.optcheck.trace.gradient_script import GradientScript, at_step, flatten, unflatten
from nnjax.optcheck.trace.traces import CANNOT_TRACE
from nnjax.types import PyTree

DEPTH = 8  # depth to which containers and attributes are searched
CHANGES = (-1.5, -3.0)  # factors of the gradients of a leaf in the second run, which shows which arrays belong to it
SHRINK = 1e-6  # rounding of the ratio of an array in both runs
UNLIKE = 1.2  # smallest ratio of the changes of both halves of an array that belongs to the leaf
SHARE = 0.1  # parameters change by less than this share in a step
COPY = 1e-6  # largest relative difference of a stored gradient; a moment may be close to the gradient

History = dict[str, np.ndarray]  # for each path of an array, its values (steps + 1, elements)


def stored_arrays(
    adapter: Adapter, script: GradientScript, elements: np.ndarray, deadline: Deadline
) -> list[np.ndarray]:
    """Run an optimizer on a script in float64, and return the arrays that it stores for one leaf.

    These are the arrays that have as many elements as the leaf, and do not shrink with larger gradients, or whose
    elements grow more if their gradients do. Arrays of other leaves may shrink, if gradients are divided by their norm.
    Arrays that equal the leaf's parameters or gradients are left out.

    Args:
      adapter: the optimizer to run.
      script: the gradients, parameters and schedule.
      elements: the indices of the elements of the leaf.
      deadline: the time limit, checked before every step.

    Returns:
      Arrays (steps + 1, elements), whose first row is the initial value, or zeros if the optimizer creates the array
      at the first step.

    Raises:
      TimeLimitError: at the deadline.
      Exception: any exception of the optimizer.
    """
    grads = flatten(script.grads)
    changed = grads.copy()
    changed[:, elements] *= np.resize(CHANGES, len(elements))
    first, second = (
        _histories(adapter, script, unflatten(values, script.grads), elements, deadline) for values in (grads, changed)
    )
    known = ((flatten(script.params)[:, elements], SHARE), (grads[:, elements], COPY))
    arrays: list[np.ndarray] = []
    for path, values in first.items():
        is_input = any(_is_like(rows, *other) for rows in (values[:-1], values[1:]) for other in known)
        belongs = path in second and _grows(values, second[path])
        changes = not np.array_equal(values[1:-1], values[2:])
        if belongs and changes and not is_input and not any(np.array_equal(values, other) for other in arrays):
            arrays.append(values)
    return arrays


def _histories(
    adapter: Adapter, script: GradientScript, grads: PyTree, elements: np.ndarray, deadline: Deadline
) -> History:
    """Run all steps with jit if possible, because it is faster, and return the histories of all arrays."""
    if adapter.pure:
        try:
            return _run(adapter._replace(step=_jitted(adapter.step)), script, grads, elements, deadline)
        except CANNOT_TRACE:
            pass
    return _run(adapter, script, grads, elements, deadline)


@functools.lru_cache(maxsize=2)
def _jitted(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return the step with jit; it is compiled once for all leaves and scripts."""
    return jax.jit(step)


def _run(adapter: Adapter, script: GradientScript, grads: PyTree, elements: np.ndarray, deadline: Deadline) -> History:
    """Run all steps, and return the histories of all arrays with as many elements as the leaf or the whole tree."""
    rows: list[History] = []
    with jax.enable_x64(True):

        def inputs(tree: PyTree, step: int) -> PyTree:
            return jax.tree.map(adapter.array, at_step(tree, step, "float64"))

        state = adapter.init(inputs(script.params, 0))
        rows.append(dict(_arrays("", state, DEPTH, set())))
        for k in range(len(script.rates)):
            deadline.check()
            _, state = adapter.step(state, inputs(script.params, k), inputs(grads, k))
            rows.append(dict(_arrays("", state, DEPTH, set())))
    histories = {}
    for path, last in rows[-1].items():
        values = [row.get(path, np.zeros(0)) for row in rows]
        if last.size in (elements.size, script.leaf.size) and all(value.size == last.size for value in values[1:]):
            values[0] = values[0] if values[0].size == last.size else np.zeros(last.size)
            history = np.stack([value.ravel() for value in values])
            histories[path] = history[:, elements] if last.size == script.leaf.size else history
    return histories


def _grows(values: np.ndarray, changed: np.ndarray) -> bool:
    """Return True if most elements are not smaller with other gradients, or if those with larger factors grow more."""
    if np.array_equal(values, changed, equal_nan=True):
        return False
    with np.errstate(all="ignore"):
        ratios = np.abs(changed) / np.abs(values)
    finite = np.isfinite(ratios)
    if not finite.any():
        return True
    middle, *halves = (np.median(part[np.isfinite(part)]) for part in (ratios, ratios[:, ::2], ratios[:, 1::2]))
    return bool(middle >= 1 - SHRINK or halves[1] >= UNLIKE * halves[0])


def _is_like(values: np.ndarray, others: np.ndarray, share: float) -> bool:
    """Return True if two arrays are equal up to a small share of each element's largest value."""
    return bool((np.abs(values - others) <= share * np.abs(others).max(0)).all())


def _arrays(name: str, value: Any, depth: int, seen: set[int]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the paths and copies of all arrays of floats in containers, objects, closures and bound arguments."""
    if depth == 0 or id(value) in seen or isinstance(value, (type, ModuleType, str, bytes, int, float)):
        return
    if hasattr(value, "is_floating_point"):  # NumPy has no equivalent of torch.bfloat16
        value = value.detach().double().numpy() if value.is_floating_point() else None
    if isinstance(value, (np.ndarray, jax.Array)):
        if getattr(value.dtype, "kind", "key") == "f" and value.size > 1:
            yield name, np.array(value, np.float64)
        return
    seen.add(id(value))
    for key, part in _parts(value):
        yield from _arrays(f"{name}/{key}", part, depth - 1, seen)


def _parts(value: Any) -> list[tuple[Any, Any]]:
    """Return the items of a container, the attributes of an object, or the variables of a function or generator."""
    if isinstance(value, dict):
        return [(i if hasattr(key, "detach") else key, part) for i, (key, part) in enumerate(value.items())]
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    parts = dict(vars(value)) if hasattr(value, "__dict__") else {}
    if inspect.isgenerator(value) and value.gi_frame is not None:
        parts |= value.gi_frame.f_locals
    if isinstance(value, functools.partial):
        parts |= {"func": value.func, "args": value.args, "keywords": value.keywords}
    if hasattr(value, "__self__"):
        parts["self"] = value.__self__
    cells = getattr(value, "__closure__", None) or ()
    for variable, cell in zip(getattr(getattr(value, "__code__", None), "co_freevars", ()), cells, strict=False):
        try:
            parts[variable] = cell.cell_contents
        except ValueError:  # the cell is empty
            continue
    return list(parts.items())
