"""Check data on the host and convert it to the numbers that networks take."""

import warnings
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.types import Data

INT32 = np.iinfo(np.int32)
Rows: TypeAlias = range | np.ndarray  # row numbers, one per row of an array


def as_data(data: Any) -> Data:
    """Return `data` as `Data`.

    Args:
      data: `Data`, `(x, y)` or `(x, y, weights)`.

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
        raise TypeError("a Source can only be trained on; validation data must be Data or (x, y), in memory")
    raise TypeError(f"data must be nnjax.Data or a pair (x, y), got {type(data).__name__}")


def validate(data: Any, name: str = "data") -> Data:
    """Check examples for every mistake that can be seen before training, and return them as JAX arrays.

    Without x64, float64 becomes float32 and int64 becomes int32. uint8 and booleans become float32 in x, int32 in y.
    Weights become floating.

    Args:
      data: `Data`, `(x, y)` or `(x, y, weights)`, of NumPy or JAX arrays (n, ...) or pytrees of them.
      name: "data" or "validation", for the messages.

    Raises:
      ValueError: for no rows, different numbers of rows, NaN or infinite values (with their count and the first
        position), and negative weights.
      TypeError: for strings and objects.

    Warns:
      UserWarning: if x is float64 and will be cast, if x is unscaled uint8, or if all labels are equal.

    >>> checked = data.validate((np.ones((3, 2), np.float32), np.array([0, 1, 1])))
    >>> checked.y.dtype
    dtype('int32')
    """
    examples = as_data(data)
    weights: Any = None if examples.weights is None else np.asarray(examples.weights)  # may be a list
    arrays: Data = jax.tree.map(np.asarray, examples._replace(weights=weights))
    leaves = named_leaves(arrays, name)
    for leaf_name, leaf in leaves:
        check_numbers(leaf_name, leaf)
    n = count_rows(name, arrays)
    converted = convert(arrays, range(n), name)
    y = arrays.y
    if isinstance(y, np.ndarray) and y.ndim == 1 and np.issubdtype(y.dtype, np.integer) and (y == y[0]).all() and n > 1:
        warnings.warn(f"{name}.y: all {n} labels are {y[0]}; a classifier needs at least two classes", stacklevel=2)
    for leaf_name, leaf in leaves:
        if is_x(leaf_name, name):
            warn_of_cast(leaf_name, leaf.dtype, leaf.max(initial=0) if leaf.dtype == np.uint8 else 0)
    return jax.tree.map(jnp.asarray, converted)


def convert(data: Data, rows: Rows, name: str = "data") -> Data:
    """Convert NumPy arrays to the dtypes that networks take, see `validate`; `rows` are row numbers, for messages.

    Raises:
      ValueError: for NaN and infinite values, negative weights, and integers that do not fit into int32.
    """
    leaves = []
    for leaf_name, leaf in named_leaves(data, name):
        check_finite(leaf_name, leaf, rows)
        leaves.append(cast(leaf_name, leaf, features=is_x(leaf_name, name), rows=rows))
    if data.weights is not None:
        if (data.weights < 0).any():
            i = int(data.weights.argmin())
            raise ValueError(f"{name}.weights must be ≥ 0, got {data.weights[i]:g} in row {rows[i]}")
        leaves[-1] = leaves[-1].astype(jnp.result_type(float), copy=False)
    return jax.tree.unflatten(jax.tree.structure(data), leaves)


def named_leaves(data: Data, name: str = "data") -> list[tuple[str, Any]]:
    """Return the leaves with their names: `data.x`, `data.y/0`, …."""
    return [(f"{name}.{checks.path_name(path)}", leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(data)]


def is_x(leaf_name: str, name: str = "data") -> bool:
    """Return True if a leaf, named as by `named_leaves`, is part of x."""
    return leaf_name.removeprefix(f"{name}.").split("/")[0] == "x"


def count_rows(where: str, data: Data) -> int:
    """Return the number of rows, the same for all leaves.

    Raises:
      ValueError: for no rows, different numbers of rows, and weights that are not (n,).
    """
    rows = {name.removeprefix("data."): leaf.shape[0] for name, leaf in named_leaves(data)}
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"{name} has {n}" for name, n in rows.items())
        raise ValueError(f"{where}: all arrays must have the same number of rows, {listed}")
    n = next(iter(rows.values()), 0)
    if n == 0:
        raise ValueError(f"{where}: 0 rows; at least 1 is needed")
    if data.weights is not None and data.weights.shape != (n,):
        raise ValueError(f"{where}: weights must have the shape ({n},), got {data.weights.shape}")
    return n


def x64() -> bool:
    """Return True if JAX keeps 64-bit numbers."""
    return bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]


def cast(name: str, a: np.ndarray, *, features: bool, rows: Rows | None = None) -> np.ndarray:
    """Return an array as float32 or int32; with x64, 64-bit numbers stay 64-bit.

    Args:
      name: name of the array, for the message.
      a: the array, (n, ...).
      features: whether the array is x, in which uint8 and booleans become float32. Elsewhere booleans become int32.
      rows: n row numbers for the message; None to leave the row out.

    Raises:
      ValueError: for an integer that does not fit into int32.
    """
    if a.dtype == bool or (features and a.dtype == np.uint8):
        return a.astype(np.float32 if features else np.int32)
    if x64():
        return a
    if a.dtype == np.float64:
        return a.astype(np.float32)
    if not np.issubdtype(a.dtype, np.integer) or a.dtype == np.int32:
        return a
    if not np.can_cast(a.dtype, np.int32) and (outside := (a > INT32.max) | (a < INT32.min)).any():
        first = tuple(np.argwhere(outside)[0])
        place = "" if rows is None else f" in row {rows[first[0]]}"
        raise ValueError(f"{name}: {a[first]}{place} does not fit into int32")
    return a.astype(np.int32)


def warn_of_cast(name: str, dtype: Any, largest: float) -> None:
    """Warn if casting x loses digits, or if x is unscaled uint8."""
    if dtype == np.uint8 and largest > 1:
        warnings.warn(
            f"{name}: uint8 values up to {largest:g} are cast to float32 unscaled; scale them, as in x / 255",
            stacklevel=4,
        )
    if dtype == np.float64 and not x64():
        warnings.warn(f"{name}: float64 is cast to float32 (JAX's x64 mode is off)", stacklevel=4)


def check_numbers(name: str, leaf: np.ndarray) -> None:
    """Check that an array holds numbers and has a row axis."""
    if not (np.issubdtype(leaf.dtype, np.number) or leaf.dtype == bool or jnp.issubdtype(leaf.dtype, jnp.floating)):
        raise TypeError(f"{name} must be numbers, got {leaf.dtype}; encode text and categories as numbers")
    if leaf.ndim == 0:
        raise ValueError(f"{name} must have a leading axis of rows, got a scalar; convert lists with np.asarray")


def check_finite(name: str, leaf: np.ndarray, rows: Rows) -> None:
    """Check that there is no NaN and no infinity; `rows` are the row numbers of the array, for the message."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return
    nonfinite = ~np.isfinite(leaf.astype(np.float32) if leaf.dtype.itemsize < 4 else leaf)
    if nonfinite.any():
        first = tuple(int(i) for i in np.argwhere(nonfinite)[0])
        raise ValueError(
            f"{name}: {int(nonfinite.sum())} values are not finite, the first is {leaf[first]} at "
            f"{[int(rows[first[0]]), *first[1:]]}; drop or fill them"
        )
