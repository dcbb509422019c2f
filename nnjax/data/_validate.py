"""Check data on the host, and convert them to dtypes that networks accept."""

import inspect
import warnings
from collections.abc import Collection
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.data._transfers import allow_transfers
from nnjax.types import Data

INT32 = np.iinfo(np.int32)
Rows: TypeAlias = range | np.ndarray  # row numbers, one per row of an array


def as_data(data: Any, name: str = "data") -> Data:
    """Convert a tuple or list to `Data`; return `Data` unchanged.

    Args:
      data: `Data`, `(x, y)` or `(x, y, weights)`.
      name: name of the data, for messages.

    Raises:
      TypeError: if `data` is none of these.

    >>> data.as_data((jnp.ones((3, 2)), jnp.zeros(3))).weights is None
    True
    """
    if isinstance(data, Data):
        return data
    if isinstance(data, (tuple, list)) and len(data) in (2, 3):
        return Data(*data)
    if hasattr(data, "gather"):
        raise TypeError("a Source can only be used for training; validation data must be Data or (x, y), in memory")
    raise TypeError(f"{name} must be nnjax.Data or a pair (x, y), got {checks.describe(data)}{_way_to_data(data)}")


def _way_to_data(data: Any) -> str:
    """Return advice on how to get examples from an object that is not `Data`."""
    if inspect.isgeneratorfunction(data):
        return "; call the function for its generator of batches"
    if hasattr(data, "train") and hasattr(data, "test"):
        return "; pass its part .train or .test"
    if hasattr(data, "columns"):
        return "; data.load(frame, target=column) encodes a table"
    if isinstance(data, tuple) or hasattr(data, "shape"):
        return "; for data without targets, pass (x, None)"
    return ""


@allow_transfers
def validate(data: Any, name: str = "data", *, keep: Collection[str] = ()) -> Data:
    """Check examples for all errors that can be detected before training, and return them as JAX arrays.

    Without x64, float64 becomes float32, and integers of all sizes become int32. However, uint8 and booleans in x
    become float32. Booleans in y become int32. Weights get JAX's default float dtype. Long doubles and arrays in
    non-native byte order are also converted.

    Args:
      data: `Data`, `(x, y)` or `(x, y, weights)`, of NumPy or JAX arrays (n, ...) or pytrees of them.
      name: "data" or "validation", for the messages.
      keep: names of leaves of x that are not cast from uint8 or booleans, such as "x" or "x/tokens". `fit` keeps leaves
        that the network does not accept as float32, such as the input of `nn.embedding`.

    Raises:
      ValueError: if there are no rows, if the numbers of rows differ, or if weights are negative or not (n,). It is
        also raised if values are NaN, infinite, masked or too large for their new dtype; the message gives the position
        of the first.
      TypeError: if `data` is none of these, if arrays contain strings or objects, if weights are complex, or if arrays
        are traced, as inside `jit`, `vmap` and `grad`.

    Warns:
      UserWarning: if x is float64 and will be cast, if x is unscaled uint8, or if all labels are equal.

    >>> checked = data.validate((np.ones((3, 2), np.float32), np.array([0, 1, 1])))
    >>> checked.y.dtype
    dtype('int32')
    """
    checks.instance("validate", "name", name, str, "a string for the messages")
    arrays = as_arrays(as_data(data, name), name=name)
    leaves = named_leaves(arrays, name)
    n = count_rows(name, arrays)
    converted = convert(arrays, range(n), name, keep=keep)
    y = arrays.y
    if isinstance(y, np.ndarray) and y.ndim == 1 and np.issubdtype(y.dtype, np.integer) and (y == y[0]).all() and n > 1:
        warnings.warn(f"{name}.y: all {n} labels are {y[0]}; a classifier needs at least two classes", stacklevel=2)
    for leaf_name, leaf in leaves:
        if is_x(leaf_name, name) and leaf_name.removeprefix(f"{name}.") not in keep:
            warn_of_cast(leaf_name, leaf.dtype, leaf.max(initial=0) if leaf.dtype == np.uint8 else 0)
    return jax.tree.map(jnp.asarray, converted)


def as_batch(where: str, name: str, data: Any) -> Data:
    """Convert `data` to `Data`, and check that its leaves, which may be traced, are arrays with a row axis."""
    batch = as_data(data, f"{where}: {name}")
    check_row_axes(f"{where}: {name}.x", batch.x)
    check_row_axes(f"{where}: {name}", (batch.y, batch.weights))
    return batch


def check_row_axes(name: str, tree: Any) -> None:
    """Check that the leaves of a pytree are arrays with a leading axis, and that x has at least one leaf."""
    leaves = jax.tree.leaves(tree)
    for leaf in leaves:
        if not hasattr(leaf, "dtype") or not getattr(leaf, "shape", ()):
            raise TypeError(f"{name} must hold arrays with a leading axis of rows, got {leaf!r:.80}")
    if not leaves and name.endswith("x"):
        raise TypeError(f"{name} must hold at least one array, got {tree!r}")


def as_arrays(data: Data, rows: Rows | None = None, name: str = "data") -> Data:
    """Convert every leaf to a NumPy array of numbers with a row axis.

    Args:
      data: examples whose leaves NumPy can convert to arrays.
      rows: the row numbers, for messages; None means 0, 1, ….
      name: name of the data, for the messages.

    Raises:
      TypeError: if a leaf is a tracer or does not contain numbers; the message names the leaf.
      ValueError: if a leaf is a scalar or contains masked values.
    """
    if data.weights is not None:
        weights: Any = _as_array(f"{name}.weights", data.weights, rows)  # may be a list
        data = data._replace(weights=weights)
    leaves = [_as_array(leaf_name, leaf, rows) for leaf_name, leaf in named_leaves(data, name)]
    return jax.tree.unflatten(jax.tree.structure(data), leaves)


def _as_array(name: str, leaf: Any, rows: Rows | None) -> np.ndarray:
    if checks.is_traced(leaf):
        raise TypeError(
            f"{name} is traced by JAX, so its values cannot be checked; inside jit, vmap and grad call Run.steps"
        )
    if isinstance(leaf, np.ma.MaskedArray):  # np.asarray would drop the mask
        masked = np.argwhere(np.ma.getmaskarray(leaf))
        if len(masked):
            raise ValueError(
                f"{name}: {len(masked)} values are masked, the first at {_position(masked[0], rows)}; fill them, as in "
                "a.filled(0), or drop their rows"
            )
        leaf = leaf.data
    try:
        array = np.asarray(leaf)
    except Exception as error:  # arrays of other libraries may raise any error here
        raise TypeError(f"{name} must be an array of numbers, got {type(leaf).__name__}: {error}") from error
    check_numbers(name, array)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def convert(data: Data, rows: Rows, name: str = "data", *, keep: Collection[str] = ()) -> Data:
    """Convert NumPy arrays to dtypes that networks accept; see `validate`. Messages give row numbers from `rows`.

    Raises:
      ValueError: if values are NaN, infinite or too large for their new dtype, or if weights are negative or their sum
        is too large.
      TypeError: if weights are complex.
    """
    leaves = []
    for leaf_name, leaf in named_leaves(data, name):
        check_finite(leaf_name, leaf, rows)
        unchanged = leaf_name.removeprefix(f"{name}.") in keep
        leaves.append(leaf if unchanged else cast(leaf_name, leaf, features=is_x(leaf_name, name), rows=rows))
    if data.weights is not None:
        if np.iscomplexobj(data.weights):
            raise TypeError(f"{name}.weights must be real numbers, got {data.weights.dtype}")
        if (data.weights < 0).any():
            i = int(data.weights.argmin())
            raise ValueError(f"{name}.weights must be ≥ 0, got {data.weights[i]:g} in row {rows[i]}")
        weights = leaves[-1].astype(jnp.result_type(float), copy=False)
        with np.errstate(over="ignore"):
            total = weights.sum()
        if not np.isfinite(total):
            raise ValueError(f"{name}.weights: their sum is too large for {weights.dtype}; divide them by their mean")
        leaves[-1] = weights
    return jax.tree.unflatten(jax.tree.structure(data), leaves)


def named_leaves(data: Data, name: str = "data") -> list[tuple[str, Any]]:
    """Return all leaves as pairs (name, leaf), with names such as `data.x` or `data.y/0`."""
    return [(f"{name}.{checks.path_name(path)}", leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(data)]


def is_x(leaf_name: str, name: str = "data") -> bool:
    """Return True if a leaf with this name from `named_leaves` is part of x."""
    return leaf_name.removeprefix(f"{name}.").split("/")[0] == "x"


def count_rows(where: str, data: Data) -> int:
    """Return the number of rows, which must be the same for all leaves.

    Raises:
      ValueError: if there are no rows, if the numbers of rows differ, or if the weights are not (n,).
    """
    rows = {name.removeprefix("data."): leaf.shape[0] for name, leaf in named_leaves(data)}
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"{name} has {n}" for name, n in rows.items())
        raise ValueError(f"{where}: all arrays must have the same number of rows, {listed}")
    n = next(iter(rows.values()), 0)
    if n and not any(name == "x" or name.startswith("x/") for name in rows):
        raise ValueError(f"{where}: x holds no array")
    if n == 0:
        raise ValueError(f"{where}: 0 rows; at least 1 is needed")
    if data.weights is not None and data.weights.shape != (n,):
        raise ValueError(f"{where}: weights must have the shape ({n},), got {data.weights.shape}")
    return n


def x64() -> bool:
    """Return True if JAX's x64 mode is on."""
    return bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]


def cast(name: str, a: np.ndarray, *, features: bool, rows: Rows | None = None) -> np.ndarray:
    """Cast an array to a dtype that JAX stores. Without x64, 64-bit numbers become 32-bit, and all integers int32.

    Args:
      name: name of the array, for the message.
      a: the array, (n, ...).
      features: True if the array is part of x, so uint8 and booleans become float32; otherwise, booleans become int32.
      rows: n row numbers, for the message; None omits the row.

    Raises:
      ValueError: if a number is too large for the new dtype.
    """
    if a.dtype == bool or (features and a.dtype == np.uint8):
        return a.astype(np.float32 if features else np.int32)
    dtype = _dtype_of(a.dtype)
    if dtype == a.dtype:
        return a
    if jnp.issubdtype(dtype, np.inexact):
        with np.errstate(over="ignore"):
            result = a.astype(dtype)
        outside = np.isfinite(a) & ~np.isfinite(result)
        fix = "; scale it" if x64() else "; scale it, or switch jax_enable_x64 on"
    else:
        result = a.astype(dtype)
        fits = a.dtype.itemsize < 4  # int32 needs no cast and was returned above
        outside = np.zeros(0, bool) if fits else (a > INT32.max) | (a < INT32.min)
        fix = ""
    if outside.any():
        first = tuple(np.argwhere(outside)[0])
        place = "" if rows is None else f" in row {rows[first[0]]}"
        raise ValueError(f"{name}: {a[first]!s}{place} does not fit into {dtype}{fix}")
    return result


def _dtype_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which JAX stores arrays of this dtype."""
    wide = 2 if x64() else 1
    if dtype.kind == "f" and dtype.itemsize > 4 * wide:
        return np.dtype(f"f{4 * wide}")
    if dtype.kind == "c" and dtype.itemsize > 8 * wide:
        return np.dtype(f"c{8 * wide}")
    if jnp.issubdtype(dtype, jnp.integer) and not x64():
        return np.dtype(np.int32)
    return dtype


def warn_of_cast(name: str, dtype: Any, largest: float) -> None:
    """Warn if casting x loses precision, or if x is unscaled uint8."""
    if dtype == np.uint8 and largest > 1:
        warnings.warn(
            f"{name}: uint8 values up to {largest:g} are cast to float32 unscaled; scale them, as in x / 255",
            stacklevel=4,
        )
    if dtype.kind in "fc" and (new := _dtype_of(dtype)) != dtype:
        why = "" if x64() else " (JAX's x64 mode is off)"
        warnings.warn(f"{name}: {dtype} is cast to {new}{why}", stacklevel=4)


def check_numbers(name: str, leaf: np.ndarray) -> None:
    """Check that an array contains numbers and has a row axis."""
    if leaf.dtype.kind not in "biufc" and not jnp.issubdtype(leaf.dtype, jnp.number):  # bfloat16 has the kind "V"
        fix = ", or number the classes by np.unique(y, return_inverse=True)[1]" if name.endswith(".y") else ""
        raise TypeError(
            f"{name} must be numbers, got {leaf.dtype}; encode text and categories as numbers, as data.load does{fix}"
        )
    if leaf.dtype.kind == "m":
        raise TypeError(f"{name} must be numbers, got {leaf.dtype}; divide by a unit, as in a / np.timedelta64(1, 's')")
    if leaf.ndim == 0:
        raise ValueError(f"{name} must have a leading axis of rows, got a scalar; convert lists with np.asarray")


def check_finite(name: str, leaf: np.ndarray, rows: Rows) -> None:
    """Check that all numbers of an array are finite; `rows` are its row numbers, for the message."""
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return
    nonfinite = ~np.isfinite(leaf.astype(np.float32) if leaf.dtype.itemsize < 4 else leaf)
    if nonfinite.any():
        first = np.argwhere(nonfinite)[0]
        raise ValueError(
            f"{name}: {int(nonfinite.sum())} values are not finite, the first is {leaf[tuple(first)]} at "
            f"{_position(first, rows)}; drop or fill them"
        )


def _position(index: np.ndarray, rows: Rows | None) -> list[int]:
    """Return the indices of a value, with the first one replaced by the row number."""
    first, *others = map(int, index)
    return [first if rows is None else int(rows[first]), *others]
