"""Access examples that are in memory (`Data`) or read batch by batch (`Source`)."""

from collections.abc import Collection
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nnjax import checks
from nnjax.data._source import Source, check_source, source
from nnjax.data._transfers import allow_transfers
from nnjax.data._validate import as_arrays, as_batch, as_data, validate
from nnjax.storage import checkpoint
from nnjax.types import Data

Examples: TypeAlias = Data | Source


def as_examples(data: Any, *, keep: Collection[str] = ()) -> Examples:
    """Convert arrays to validated `Data`, or to a `Source` if x is memory-mapped; add checks to a given `Source`.

    Args:
      data: a `Source`, `Data`, `(x, y)` or `(x, y, weights)`.
      keep: names of leaves of x that are not cast; see `data.validate`.

    Raises:
      TypeError, ValueError: as raised by `data.source` and `data.validate`.

    >>> data.as_examples((np.memmap("x.bin", np.float32, "w+", shape=(8, 2)), np.arange(8) % 2)).n
    8
    """
    if isinstance(data, Source):
        return check_source(data, keep)
    x, y, weights = as_data(data)
    if any(isinstance(leaf, np.memmap) for leaf in jax.tree.leaves(x)):
        arrays = as_arrays(Data((), y, weights))
        return check_source(source(x, arrays.y, arrays.weights), keep)
    return validate(data, keep=keep)


def _check(where: str, data: Any) -> None:
    """Check that the argument of a public function is `Data` or a `Source`, as returned by `as_examples`."""
    if not isinstance(data, Source):
        checks.instance(where, "data", data, Data, "Data or a Source, as returned by data.as_examples")
        if jax.tree.leaves(data):  # a run without data has no leaves
            as_batch(where, "data", data)


def n_rows(data: Examples) -> int:
    """Return the number of examples, or 0 if there are no arrays.

    >>> data.n_rows(data.Data(np.ones((8, 2)), np.ones(8)))
    8
    """
    _check("n_rows", data)
    return data.n if isinstance(data, Source) else next((leaf.shape[0] for leaf in jax.tree.leaves(data)), 0)


def n_bytes(data: Examples) -> int:
    """Return the size of all examples in bytes; for a `Source`, their size after conversion.

    >>> data.n_bytes(data.Data(np.ones((8, 2), np.float32), np.ones(8, np.int32)))
    96
    """
    _check("n_bytes", data)
    if isinstance(data, Source):
        return data.n * data.bytes_per_row
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(data))


@allow_transfers
def take_rows(data: Examples, rows: Array | np.ndarray) -> Data:
    """Return the examples in the given rows as JAX arrays.

    Args:
      data: the examples. If they are `Data`, `rows` may be traced.
      rows: row numbers in 0 … n - 1, of any shape for `Data` and of shape (m,) for a `Source`. If they are traced,
        numbers out of range are not detected.

    Raises:
      TypeError, ValueError: if the data are not examples, if the rows are not integers in this range, and as raised by
        the `gather` of a `Source`.

    >>> data.take_rows(data.Data(np.arange(8.0), np.arange(8)), np.array([3, 5])).y.tolist()
    [3, 5]
    """
    _check("take_rows", data)
    rows = _as_rows(rows, None if checks.is_traced(rows) else n_rows(data))
    if isinstance(data, Source):
        return jax.tree.map(jnp.asarray, data.gather(np.asarray(rows)))
    return jax.tree.map(lambda a: jnp.asarray(a).at[rows].get(mode="promise_in_bounds"), data)


def _as_rows(rows: Any, n: int | None) -> Array | np.ndarray:
    if n is None:
        return rows
    try:
        numbers = np.asarray(rows)
    except (ValueError, TypeError):  # for example, lists of different lengths or random keys
        numbers = np.asarray("")
    if not np.issubdtype(numbers.dtype, np.integer):
        raise TypeError(f"take_rows: rows must be integers, got {rows!r:.80}; np.flatnonzero converts a mask")
    if numbers.size and (numbers.min() < 0 or numbers.max() >= n):
        raise ValueError(f"take_rows: rows must be in 0 … {n - 1}, got {numbers.min()} … {numbers.max()}")
    return numbers


def sample(data: Examples) -> Data:
    """Return examples for initialisation and tracing: all rows of `Data`, or the first row of a `Source`.

    >>> data.sample(data.source(np.ones((8, 2), np.float32), np.ones(8))).x.shape
    (1, 2)
    """
    _check("sample", data)
    return data.gather(np.zeros(1, np.int64)) if isinstance(data, Source) else data


def digest(data: Examples) -> str:
    """Return a SHA-256 digest of all rows of `Data`, or the field `digest` of a `Source`.

    >>> x, y = np.ones((8, 2), np.float32), np.arange(8)
    >>> data.digest(data.Data(x, y)) == data.digest(data.Data(x, y[::-1]))
    False
    """
    _check("digest", data)
    return data.digest if isinstance(data, Source) else checkpoint.digest(data)
