"""Functions that accept examples in memory (`Data`) and examples that are read batch by batch (`Source`)."""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nnjax.data._source import Source, source
from nnjax.data._validate import as_data, validate
from nnjax.storage import checkpoint
from nnjax.types import Data

Examples: TypeAlias = Data | Source


def as_examples(data: Any) -> Examples:
    """Return a `Source` unchanged, memory-mapped x as a `Source`, and other arrays as validated `Data`.

    Args:
      data: a `Source`, `Data`, `(x, y)` or `(x, y, weights)`.

    Raises:
      TypeError, ValueError: as raised by `data.source` and `data.validate`.

    >>> data.as_examples((np.memmap("x.bin", np.float32, "w+", shape=(8, 2)), np.arange(8) % 2)).n
    8
    """
    if isinstance(data, Source):
        return data
    x, y, weights = as_data(data)
    if any(isinstance(leaf, np.memmap) for leaf in jax.tree.leaves(x)):
        y, weights = jax.tree.map(np.asarray, (y, weights))
        return source(x, y, weights)
    return validate(data)


def n_rows(data: Examples) -> int:
    """Return the number of examples.

    >>> data.n_rows(data.Data(np.ones((8, 2)), np.ones(8)))
    8
    """
    return data.n if isinstance(data, Source) else int(jax.tree.leaves(data.x)[0].shape[0])


def n_bytes(data: Examples) -> int:
    """Return the size of all examples in memory, in bytes.

    >>> data.n_bytes(data.Data(np.ones((8, 2), np.float32), np.ones(8, np.int32)))
    96
    """
    if isinstance(data, Source):
        return data.n * data.bytes_per_row
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(data))


def take_rows(data: Examples, rows: Array | np.ndarray) -> Data:
    """Return the examples in the given rows as JAX arrays.

    Args:
      data: the examples. If they are `Data`, `rows` may be traced.
      rows: (m,) row numbers in 0 … n - 1. Rows outside are not detected.

    >>> data.take_rows(data.Data(np.arange(8.0), np.arange(8)), np.array([3, 5])).y.tolist()
    [3, 5]
    """
    if isinstance(data, Source):
        return jax.tree.map(jnp.asarray, data.gather(np.asarray(rows)))
    return jax.tree.map(lambda a: jnp.asarray(a).at[rows].get(mode="promise_in_bounds"), data)


def sample(data: Examples) -> Data:
    """Return examples to initialise and trace with: all of `Data`, or the first row of a `Source`.

    >>> data.sample(data.source(np.ones((8, 2), np.float32), np.ones(8))).x.shape
    (1, 2)
    """
    return data.gather(np.zeros(1, np.int64)) if isinstance(data, Source) else data


def digest(data: Examples) -> str:
    """Return a SHA-256 of the examples: of all rows of `Data`, of up to 1024 rows of a `Source`.

    >>> x, y = np.ones((8, 2), np.float32), np.arange(8)
    >>> data.digest(data.Data(x, y)) == data.digest(data.Data(x, y[::-1]))
    False
    """
    return data.digest if isinstance(data, Source) else checkpoint.digest(data)
