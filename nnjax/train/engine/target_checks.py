"""Check that targets are valid for the loss, by evaluating the loss of each row on random predictions."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nnjax import checks
from nnjax.data import Source, n_rows, sample
from nnjax.train.run import function_name
from nnjax.types import Loss, PyTree

PROBES = (-1, 0, 1, 2)  # targets that show which values a loss accepts
FIRST_ROWS = 1024  # rows of a source that are checked; evaluating each batch would slow training down
BLOCK = 2**20  # numbers in the predictions that are evaluated at a time


def check_targets(data: Any, loss: Loss, predict: Callable[[PyTree], PyTree], name: str = "data") -> None:
    """Check that no target makes the loss NaN; of a `Source`, the first rows are checked.

    Only targets that are compared with the outputs one by one are checked; `data.check_labels` checks the labels that
    select an output. A target is invalid if its loss is NaN for two different predictions, although other targets have
    a loss for the same predictions. So losses that are NaN for all targets pass; the run itself reports them.

    Args:
      data: the examples.
      loss: `(prediction, target) -> (batch,)`.
      predict: the network as a function of x; only the shapes and dtypes of its result matter.
      name: "data" or "validation", for the message.

    Raises:
      ValueError: if a target is invalid; the message gives its row, valid targets, and a fix.
    """
    first = sample(data)
    outputs = jax.eval_shape(predict, first.x)
    shapes = {output.shape[1:] for output in jax.tree.leaves(outputs)}
    single = all(math.prod(shape) == 1 for shape in shapes)
    compared = [
        leaf.shape[1:] in shapes or (single and leaf[:1].size == 1)
        for leaf in map(np.asarray, jax.tree.leaves(first.y))
    ]
    if not any(compared):
        return
    examples = data.gather(np.arange(min(n_rows(data), FIRST_ROWS))) if isinstance(data, Source) else data
    try:
        message = _invalid_target(loss, outputs, jax.tree.map(np.asarray, examples.y), compared, single)
    except Exception:  # the run will call the loss again, and raise an error with more details
        return
    if message is not None:
        raise ValueError(f"{name}.y{message}")


def _invalid_target(loss: Loss, outputs: PyTree, y: PyTree, compared: list[bool], single: bool) -> str | None:
    """Return the message for the first invalid target, which starts with its path; None if all are valid."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(y)
    compiled = jax.jit(loss)

    def is_nan(y: PyTree) -> np.ndarray:
        """Return for each row whether its loss is NaN for two predictions."""
        n = len(jax.tree.leaves(y)[0])
        with jax.debug_nans(False), jax.debug_infs(False), jax.transfer_guard("allow"):
            values = [compiled(_random_prediction(outputs, n, low), y) for low in (0.2, -0.8)]
            return np.asarray(np.isnan(values[0]) & np.isnan(values[1]))

    def with_leaf(row: PyTree, i: int, value: Any) -> PyTree:
        targets = jax.tree.leaves(row)
        dtype = targets[i].dtype if targets[i].dtype.kind == "f" else np.int32
        return jax.tree.unflatten(treedef, [*targets[:i], np.full(targets[i].shape, value, dtype), *targets[i + 1 :]])

    first = jax.tree.map(lambda a: a[:1], y)
    probed = [(i, probe) for i, used in enumerate(compared) if used for probe in PROBES]
    if not any(is_nan(with_leaf(first, i, probe))[0] for i, probe in probed):
        return None  # the loss accepts all numbers, as the squared error does
    row = _first_row(is_nan, y, max(1, BLOCK // sum(math.prod(a.shape[1:]) for a in jax.tree.leaves(outputs))))
    if row is None:
        return None
    example = jax.tree.map(lambda a: a[row : row + 1], y)
    for i, (path, target) in enumerate(leaves):
        accepted = [probe for probe in PROBES if compared[i] and not is_nan(with_leaf(example, i, probe))[0]]
        # A single output that accepts only 0 is the logit of one class; `data.check_labels` has the better message
        if not accepted or (single and accepted == [0] and target.dtype.kind != "f"):
            continue
        values = np.unique(target[row])
        invalid = [v for v in [*values[:8], *values[-8:]] if is_nan(with_leaf(example, i, v))[0]]
        if invalid:
            where = f"/{checks.path_name(path)}" if path else ""
            return f"{where}: {_message(loss, target, invalid[0], accepted, row)}"
    return None


def _first_row(is_nan: Callable[[PyTree], np.ndarray], y: PyTree, block: int) -> int | None:
    """Return the first row whose loss is NaN, evaluating at most `block` rows at a time."""
    n = len(jax.tree.leaves(y)[0])
    for start in range(0, n, block):
        start = max(0, min(start, n - block))  # noqa: PLW2901 - blocks of equal size share one program
        found = np.flatnonzero(is_nan(jax.tree.map(lambda a, start=start: a[start : start + block], y)))
        if found.size:
            return start + int(found[0])
    return None


def _random_prediction(outputs: PyTree, n: int, low: float) -> PyTree:
    rng = np.random.default_rng(0)

    def draw(a: Any) -> np.ndarray:
        return rng.uniform(low, low + 0.6, (n, *a.shape[1:])).astype(a.dtype if a.dtype.itemsize >= 4 else np.float32)

    return jax.tree.map(draw, outputs)


def _message(loss: Loss, target: np.ndarray, invalid: Any, accepted: list[int], row: int) -> str:
    values = np.unique(target)
    fix = "correct these targets, or leave out their rows"
    if len(values) == len(accepted) == 2:
        fix = f"use np.where(y == {values[1]:g}, {accepted[1]}, {accepted[0]})"
    return (
        f"{invalid:g} in row {row} makes the loss NaN; of the targets {_listed(PROBES)}, {function_name(loss)} "
        f"accepts {_listed(accepted)}; {fix}"
    )


def _listed(values: Any) -> str:
    *most, last = map(str, values)
    return f"{', '.join(most)} and {last}" if most else last
