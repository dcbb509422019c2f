"""Data as the caller has it, as `Data`, looked at once on the host."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.types import Data, PyTree

INT32 = np.iinfo(np.int32)


def as_data(data: Any) -> Data:
    """`Data` as it is, `(x, y)` or `(x, y, weights)` as `Data`.

    Raises:
      TypeError: for anything else.

    >>> data.as_data((jnp.ones((3, 2)), jnp.zeros(3))).weights is None
    True
    """
    if isinstance(data, Data):
        return data
    if isinstance(data, (tuple, list)) and len(data) in (2, 3):
        return Data(*data)
    if hasattr(data, "gather"):
        raise TypeError(
            "a Source is for training data; what is looked at whole, as in validation, must be Data or (x, y)"
        )
    raise TypeError(f"data must be nnjax.Data or a pair (x, y), got {type(data).__name__}")


def validate(data: Any, name: str = "data") -> Data:
    """Examples with every mistake found that can be seen before training; arrays on the device, float32 and int32.

    Args:
      data: `Data`, `(x, y)` or `(x, y, weights)`, of NumPy or JAX arrays or pytrees of them.
      name: for messages: "data" or "validation".

    Returns:
      `Data` of JAX arrays. Without x64, float64 becomes float32 and int64 int32; uint8 and booleans in x become
      float32.

    Raises:
      ValueError: for no rows, different lengths, NaN or infinities (count and first place), negative weights.
      TypeError: for strings and objects.

    Warns:
      UserWarning: where float64 is cast, where uint8 images are not scaled, where there is one class only.

    >>> checked = data.validate((np.ones((3, 2), np.float32), np.array([0, 1, 1])))
    >>> checked.y.dtype
    dtype('int32')
    """
    x, y, weights = as_data(data)
    x = jax.tree.map(np.asarray, x)
    y = jax.tree.map(np.asarray, y)
    for part, tree in (("x", x), ("y", y)):
        for path, leaf in _leaves(tree):
            check_numbers(f"{name}.{part}{_at(path)}", leaf)
            check_finite(f"{name}.{part}{_at(path)}", leaf)
    rows = {f"{part}{_at(path)}": leaf.shape[0] for part, tree in (("x", x), ("y", y)) for path, leaf in _leaves(tree)}
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"{key} has {n}" for key, n in rows.items())
        raise ValueError(f"{name}: x and y must have the same number of rows, {listed}")
    n = next(iter(rows.values()), 0)
    if n == 0:
        raise ValueError(f"{name}: 0 rows")
    weights = None if weights is None else _weights(f"{name}.weights", np.asarray(weights), n)
    if isinstance(y, np.ndarray) and y.ndim == 1 and np.issubdtype(y.dtype, np.integer) and (y == y[0]).all() and n > 1:
        warnings.warn(f"{name}.y: all {n} labels are {y[0]}; there is nothing to tell apart", stacklevel=2)
    for path, leaf in _leaves(x):
        warn_of_casts(f"{name}.x{_at(path)}", leaf.dtype, leaf.max(initial=0) if leaf.dtype == np.uint8 else 0, x64())
    x, y = (
        jax.tree.map(lambda a, part=part: jnp.asarray(cast(f"{name}.{part}", a, features=part == "x")), tree)
        for part, tree in (("x", x), ("y", y))
    )
    return Data(x, y, weights)


def check_label_range(
    y: Any, prediction_shape: tuple[int, ...], name: str = "data", rows: np.ndarray | None = None
) -> None:
    """Integer labels, one per row of logits, are classes of the network.

    Args:
      y: labels; anything else than integers of the shape of the rows passes.
      prediction_shape: (rows, ..., classes).
      name: for messages.
      rows: what the rows of y are called in messages; None for 0, 1, 2…

    Raises:
      ValueError: with the first label out of range, its row, and the range.
    """
    if not hasattr(y, "dtype") or not np.issubdtype(y.dtype, np.integer) or y.shape != tuple(prediction_shape[:-1]):
        return
    classes = prediction_shape[-1]
    labels = np.asarray(y)
    wrong = np.argwhere((labels < 0) | (labels >= classes))
    if len(wrong):
        place = tuple(int(i) for i in wrong[0])
        row = place[0] if rows is None else int(rows[place[0]])
        raise ValueError(
            f"{name}.y: label {labels[place]} in row {row} is outside 0 … {classes - 1}; "
            f"the network has {classes} outputs"
        )


def x64() -> bool:
    """Whether JAX keeps 64-bit numbers."""
    return bool(jnp.result_type(float) == jnp.float64)


def cast(
    name: str, a: np.ndarray, *, features: bool, wide: bool | None = None, rows: np.ndarray | None = None
) -> np.ndarray:
    """Numbers as networks take them.

    Args:
      name: for messages.
      a: (n, ...).
      features: whether they are x, where uint8 and booleans become float32; elsewhere booleans become int32.
      wide: whether 64-bit numbers stay, else they become float32 and int32; None for what JAX does.
      rows: (n,) what the rows of `a` are called in messages; None for 0, 1, 2…

    Raises:
      ValueError: for an integer that does not fit into int32.

    >>> from nnjax.data._validate import cast
    >>> cast("data.x", np.array([[0, 255]], np.uint8), features=True)
    array([[  0., 255.]], dtype=float32)
    """
    if a.dtype == bool or (features and a.dtype == np.uint8):
        return a.astype(np.float32 if features else np.int32)
    if x64() if wide is None else wide:
        return a
    if a.dtype == np.float64:
        return a.astype(np.float32)
    if not np.issubdtype(a.dtype, np.integer) or a.dtype == np.int32:
        return a
    wrong = np.zeros(0) if np.can_cast(a.dtype, np.int32) else a[(a > INT32.max) | (a < INT32.min)]
    if wrong.size:
        where = "" if rows is None else f" in row {rows[np.argwhere(a == wrong[0])[0][0]]}"
        raise ValueError(f"{name}: {wrong[0]}{where} does not fit into int32")
    return a.astype(np.int32)


def warn_of_casts(name: str, dtype: Any, largest: float, wide: bool) -> None:
    """What is worth a word when x is cast: bytes that are not scaled, and lost digits."""
    if dtype == np.uint8 and largest > 1:
        warnings.warn(
            f"{name}: uint8 values up to {largest:g} are cast to float32 as they are; scale them, as in x / 255",
            stacklevel=4,
        )
    if dtype == np.float64 and not wide:
        warnings.warn(f"{name}: float64 is cast to float32 (JAX's x64 mode is off)", stacklevel=4)


def check_numbers(where: str, leaf: np.ndarray) -> None:
    """Numbers, with a row axis."""
    if not (np.issubdtype(leaf.dtype, np.number) or leaf.dtype == bool or jnp.issubdtype(leaf.dtype, jnp.floating)):
        raise TypeError(f"{where} must be numbers, got {leaf.dtype}; encode texts and categories as numbers first")
    if leaf.ndim == 0:
        raise ValueError(f"{where} must have a leading axis of rows, got one number; lists need np.asarray")


def check_finite(where: str, leaf: np.ndarray, rows: np.ndarray | None = None) -> None:
    """No NaN and no infinity; `rows` (n,) are what the rows are called in the message, None for 0, 1, 2…"""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return
    bad = ~np.isfinite(leaf.astype(np.float32) if leaf.dtype.itemsize < 4 else leaf)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        place = [first[0] if rows is None else int(rows[first[0]]), *first[1:]]
        raise ValueError(
            f"{where}: {int(bad.sum())} values are not finite, the first is {leaf[first]} at {place}; drop or fill them"
        )


def _leaves(tree: PyTree) -> list[tuple[Any, np.ndarray]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _at(path: tuple[Any, ...]) -> str:
    return f"/{checks.path_name(path)}" if path else ""


def _weights(name: str, weights: np.ndarray, n: int) -> jax.Array:
    if weights.shape != (n,):
        raise ValueError(f"{name} must be one for each row, ({n},), got {weights.shape}")
    check_numbers(name, weights)
    check_finite(name, weights)
    if (weights < 0).any():
        raise ValueError(f"{name} must be ≥ 0, got {weights.min():g} in row {int(weights.argmin())}")
    return jnp.asarray(weights, jnp.result_type(float))
