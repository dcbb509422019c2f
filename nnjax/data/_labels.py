"""Check that integer labels are valid for the loss, by evaluating the loss for labels that are out of range."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.data._examples import Examples, n_rows, sample
from nnjax.data._source import Source
from nnjax.data._validate import Rows
from nnjax.types import Data, Loss, PyTree

SEVERAL = 4  # number of the smallest and of the largest out-of-range labels to test


def check_labels(data: Examples, loss: Loss, predict: Callable[[PyTree], PyTree], name: str = "data") -> Examples:
    """Check that all integer labels are valid for the loss: immediately for `Data`, batch by batch for a `Source`.

    Only the loss determines which labels are valid, because it uses them as indices into the prediction. K is the
    length of the longest axis of the prediction, apart from the batch axis, for which the labels 0, K - 2 and K - 1
    have different losses. Labels in 0 … K - 1 are accepted; without such an axis, all labels are. For any other label,
    the loss is evaluated on a random prediction for one example. The label is invalid if this loss is not
    finite. It is also invalid if its loss equals the loss of label 0, label K - 1, the label modulo K, or integers far
    out of range. Counts are valid, because their losses differ. Labels with a special meaning in the loss, such as -1
    for "no label", are valid, too.

    Args:
      data: the examples. Every integer leaf of y is checked.
      loss: `(prediction, target) -> (batch,)`.
      predict: the network as a function of x; only the shapes and dtypes of its result matter.
      name: "data" or "validation", for the message.

    Returns:
      The same examples; for a `Source` with integer targets, a new source that checks each batch.

    Raises:
      ValueError: if a label is invalid; the message gives the first one, its row, the valid range, and a fix.
      TypeError: if `data` are not examples, or if `loss` or `predict` is not such a function.

    >>> examples = data.Data(np.ones((3, 2)), np.array([1, 2, 3]))
    >>> data.check_labels(examples, losses.cross_entropy, lambda x: jnp.ones((len(x), 3)))
    Traceback (most recent call last):
    ValueError: data.y: label 3 in row 2 is outside 0 … 2; the network has 3 outputs and the labels are 1 … 3; use y - 1
    """
    checks.instance("check_labels", "name", name, str, "a string for the messages")
    checks.function_of("check_labels", "loss", loss, "prediction", "target")
    checks.function_of("check_labels", "predict", predict, "x")
    first = sample(data)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(first.y)
    integers = [i for i, (_, leaf) in enumerate(leaves) if np.issubdtype(leaf.dtype, np.integer)]
    if not integers:
        return data
    prediction = jax.eval_shape(predict, first.x)
    floating = [leaf for leaf in jax.tree.leaves(prediction) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    sizes = sorted({size for leaf in floating for size in leaf.shape[1:]}, reverse=True)
    targets = [np.asarray(leaf[:1]) for _, leaf in leaves]
    losses = {i: _loss_of_labels(loss, prediction, targets, treedef, i) for i in integers}

    def check(batch: Data, rows: Rows) -> None:
        for i, (path, target) in enumerate(jax.tree_util.tree_leaves_with_path(batch.y)):
            if i in losses and sizes:
                where = f"{name}.y" + (f"/{checks.path_name(path)}" if path else "")
                _check_leaf(where, np.asarray(target), rows, losses[i], sizes)

    if not isinstance(data, Source):
        check(data, range(n_rows(data)))
        return data
    gather = data.gather

    def gather_checked(rows: np.ndarray) -> Data:
        batch = gather(rows)
        check(batch, rows)
        return batch

    return data._replace(gather=gather_checked)


def _check_leaf(where: str, target: np.ndarray, rows: Rows, loss_of: Callable[[int], float], sizes: list[int]) -> None:
    """Raise ValueError if a label is invalid; `sizes` are the possible numbers of classes, largest first."""
    if not _outside(target, sizes[-1]).any():
        return
    try:
        classes = next((size for size in sizes if _distinguishes(loss_of, size)), None)
    except Exception:  # the run will call the loss again, and raise an error with more details
        return
    if classes is None:
        return
    outside = np.unique(target[_outside(target, classes)])
    extremes = np.unique(np.concatenate([outside[:SEVERAL], outside[-SEVERAL:]]))
    unknown = [label for label in extremes.tolist() if not _knows(loss_of, label, classes)]
    if unknown:
        first = tuple(np.argwhere(np.isin(target, unknown))[0])
        label, row, network = target[first], rows[first[0]], f"the network has {classes} output{'s' * (classes > 1)}"
        raise ValueError(
            f"{where}: label {label} in row {row} is outside 0 … {classes - 1}; {network} and the labels are "
            f"{target.min()} … {target.max()}; {_fix(target, classes)}"
        )


def _outside(target: np.ndarray, classes: int) -> np.ndarray:
    return (target < 0) | (target >= classes)


def _loss_of_labels(
    loss: Loss, prediction: PyTree, targets: list[np.ndarray], treedef: Any, i: int
) -> Callable[[int], float]:
    """Return the loss of one example as a function of its label in leaf `i` of y; all other labels are 1."""
    rng = np.random.default_rng(0)
    # The prediction is in (0, 1), because a loss may take probabilities instead of logits
    example = jax.tree.map(lambda a: rng.uniform(0.2, 0.8, (1, *a.shape[1:])).astype(_wide(a.dtype)), prediction)
    # Replace labels and zeros with ones, because the first row may be padding; 1 is valid as a class and as a weight
    first = [np.ones_like(t) if t.dtype.kind in "biu" or not t.any() else t for t in targets]
    compiled = jax.jit(loss)
    known: dict[int, float] = {}

    def loss_of(label: int) -> float:
        if label not in known:
            labels = np.full_like(first[i], label)
            target = jax.tree.unflatten(treedef, [*first[:i], labels, *first[i + 1 :]])
            # An invalid label gives NaN as expected, which must not trigger the user's debugging modes
            with jax.debug_nans(False), jax.debug_infs(False), jax.transfer_guard("allow"):
                known[label] = float(np.asarray(compiled(example, target)).ravel()[0])
        return known[label]

    return loss_of


def _distinguishes(loss_of: Callable[[int], float], classes: int) -> bool:
    """Return True if the losses of label 0 and of the last two of `classes` labels are finite and distinct."""
    values = [loss_of(label) for label in {0, max(classes - 2, 0), classes - 1}]
    return bool(np.isfinite(values).all()) and len(set(values)) == len(values)


def _knows(loss_of: Callable[[int], float], label: int, classes: int) -> bool:
    value, far = loss_of(label), {loss_of(2**31 - 1), loss_of(-(2**31))}
    if not np.isfinite(value) or classes == 1:
        return bool(np.isfinite(value))
    return value not in {loss_of(0), loss_of(classes - 1), loss_of(label % classes)} and far != {value}


def _fix(target: np.ndarray, classes: int) -> str:
    low, high, count = int(target.min()), int(target.max()), len(np.unique(target))
    if low > 0 and high - low < classes:
        return f"use y - {low}"
    if count <= classes:
        return "number the classes from 0, as np.unique(y, return_inverse=True)[1] does"
    if low < 0:
        return f"leave out the rows without a class, or pass ignore_index={low} to losses.cross_entropy"
    if high >= count:
        return f"number the classes from 0 and give the network {count} outputs"
    return f"give the network {high + 1} outputs"


def _wide(dtype: Any) -> Any:
    return dtype if dtype.itemsize >= 4 else np.float32
