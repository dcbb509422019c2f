"""Data as the caller has it, as `Data`, looked at once on the host."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.types import Data, PyTree


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
        _check_part(f"{name}.{part}", tree)
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
    x = jax.tree.map(lambda a: _cast(f"{name}.x", a), x)
    return Data(x, jax.tree.map(lambda a: _cast_target(name, a), y), weights)


def check_labels_in_range(y: Any, prediction_shape: tuple[int, ...], name: str = "data") -> None:
    """Integer labels, one per row of logits, are classes of the network.

    Args:
      y: labels; anything else than integers of the shape of the rows passes.
      prediction_shape: (rows, ..., classes).
      name: for messages.

    Raises:
      ValueError: with the first label out of range, its row, and the range.

    >>> data.check_labels_in_range(np.array([0, 1, 10]), (3, 10))
    Traceback (most recent call last):
    ValueError: data.y: label 10 in row 2 is outside 0 … 9; the network has 10 outputs
    """
    if not hasattr(y, "dtype") or not np.issubdtype(y.dtype, np.integer) or y.shape != tuple(prediction_shape[:-1]):
        return
    classes = prediction_shape[-1]
    labels = np.asarray(y)
    wrong = np.argwhere((labels < 0) | (labels >= classes))
    if len(wrong):
        place = tuple(int(i) for i in wrong[0])
        raise ValueError(
            f"{name}.y: label {labels[place]} in row {place[0]} is outside 0 … {classes - 1}; "
            f"the network has {classes} outputs"
        )


def x64() -> bool:
    """Whether JAX keeps 64-bit numbers."""
    return bool(jnp.result_type(float) == jnp.float64)


def _leaves(tree: PyTree) -> list[tuple[Any, np.ndarray]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _at(path: tuple[Any, ...]) -> str:
    return f"/{checks.path_name(path)}" if path else ""


def _check_part(name: str, tree: PyTree) -> None:
    """Numbers only, with a row axis, all finite."""
    for path, leaf in _leaves(tree):
        where = f"{name}{_at(path)}"
        if not (np.issubdtype(leaf.dtype, np.number) or leaf.dtype == bool or jnp.issubdtype(leaf.dtype, jnp.floating)):
            raise TypeError(f"{where} must be numbers, got {leaf.dtype}; encode texts and categories as numbers first")
        if leaf.ndim == 0:
            raise ValueError(f"{where} must have a leading axis of rows, got one number; lists need np.asarray")
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            bad = ~np.isfinite(leaf.astype(np.float32) if leaf.dtype.itemsize < 4 else leaf)
            if bad.any():
                first = tuple(int(i) for i in np.argwhere(bad)[0])
                raise ValueError(
                    f"{where}: {int(bad.sum())} values are not finite, the first is {leaf[first]} at {list(first)}; "
                    "drop or fill them"
                )


def _weights(name: str, weights: np.ndarray, n: int) -> jax.Array:
    if weights.shape != (n,):
        raise ValueError(f"{name} must be one for each row, ({n},), got {weights.shape}")
    _check_part(name, weights)
    if (weights < 0).any():
        raise ValueError(f"{name} must be ≥ 0, got {weights.min():g} in row {int(weights.argmin())}")
    return jnp.asarray(weights, jnp.result_type(float))


def _cast(name: str, x: np.ndarray) -> jax.Array:
    if x.dtype in (np.uint8, bool):
        if x.size and x.max() > 1:
            warnings.warn(
                f"{name}: uint8 values up to {x.max()} are cast to float32 as they are; scale them, as in x / 255",
                stacklevel=3,
            )
        return jnp.asarray(x, jnp.float32)
    if x.dtype == np.float64 and not x64():
        warnings.warn(f"{name}: float64 is cast to float32 (JAX's x64 mode is off)", stacklevel=3)
        return jnp.asarray(x, jnp.float32)
    return _narrow(name, x)


def _cast_target(name: str, y: np.ndarray) -> jax.Array:
    if y.dtype == np.float64 and not x64():
        return jnp.asarray(y, jnp.float32)
    if y.dtype == bool:
        return jnp.asarray(y, jnp.int32)
    return _narrow(f"{name}.y", y)


def _narrow(name: str, x: np.ndarray) -> jax.Array:
    """Integers as int32, unless x64 is on."""
    if np.issubdtype(x.dtype, np.integer) and not x64():
        wrong = x[(x > np.iinfo(np.int32).max) | (x < np.iinfo(np.int32).min)]
        if wrong.size:
            raise ValueError(f"{name}: {wrong[0]} does not fit into int32")
        return jnp.asarray(x, jnp.int32)
    return jnp.asarray(x)
