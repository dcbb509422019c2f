"""Read examples in order from a generator or another iterable of batches."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from nnjax import checks
from nnjax.data._source import ROW, CheckedGather, Source
from nnjax.data._validate import as_arrays, as_data, named_leaves
from nnjax.types import Data


def is_batches(data: Any) -> bool:
    """Return True for a generator or other iterable of batches, such as another library's data loader."""
    is_data = isinstance(data, (tuple, list, dict, str, bytes, Source)) or hasattr(data, "shape")
    return isinstance(data, Iterable) and not is_data


def batches(iterable: Iterable[Any], n: int) -> Source:
    """Return a source that reads the first `n` examples of an iterable of batches in order.

    A step takes the next `batch_size` examples, regardless of the sizes of the iterable's batches. An iterable such as
    a data loader is restarted at its end; a generator cannot be restarted.

    Args:
      iterable: iterable of batches with any number of rows: `Data`, `(x, y)` or `(x, y, weights)`.
      n: number of examples to read.

    Raises:
      TypeError: if `iterable` does not yield batches, or if `n` is not an integer.
      ValueError: if `n` < 1, if the iterable is empty, or if the arrays of a batch have different numbers of rows.
        During reading, if a generator ends before `n` examples, if a row is requested again, and as raised by
        `data.source`.

    >>> generator = ((np.full((2, 3), i, np.float32), np.array([i, i])) for i in range(5))
    >>> data.batches(generator, 6).gather(np.array([2, 3])).y.tolist()
    [1, 1]
    """
    n = checks.positive_int("batches", "n", n)
    if not is_batches(iterable):
        raise TypeError(f"batches: iterable must yield batches (x, y), got {type(iterable).__name__}")
    examples = _examples(iterable)
    first = next(examples, None)
    if first is None:
        raise ValueError("batches: the iterable is empty; it must yield batches (x, y)")
    buffer, begin = first, 0  # examples that may still be requested, and the row number of the first one

    def gather(rows: np.ndarray) -> Data:
        nonlocal buffer, begin
        if np.array_equal(rows, ROW):
            return jax.tree.map(lambda a: a[:1], first)  # row 0 may be read at any time, for shapes and dtypes
        if rows.min() < begin:
            raise ValueError(f"batches: row {rows.min()} was read before; a generator can only be read once, in order")
        parts = [jax.tree.map(lambda a: a[rows.min() - begin :], buffer)]
        begin, end = int(rows.min()), begin + _length(buffer)
        while end <= rows.max():
            more = next(examples, None)
            if more is None:
                raise ValueError(f"batches: the generator ended after {end} examples; train for fewer steps")
            parts.append(more)
            end += _length(more)
        buffer = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        return jax.tree.map(lambda a: a[rows - begin], buffer)

    checked = CheckedGather(gather, None)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(checked(ROW)))
    return Source(n, checked, size, digest="a generator of batches", in_order=True)


def _examples(iterable: Iterable[Any]) -> Iterator[Data]:
    """Yield the batches as arrays. Restart the iterable when it ends, unless it is a generator or yielded no rows."""
    while True:
        empty = True
        for batch in iterable:
            arrays = as_arrays(as_data(batch, "batches"), name="batches")
            lengths = {len(leaf) for _, leaf in named_leaves(arrays)}
            if len(lengths) > 1:
                raise ValueError(f"batches: all arrays of a batch must have the same number of rows, got {lengths}")
            empty = empty and lengths <= {0}
            yield arrays
        if empty or isinstance(iterable, Iterator):
            return


def _length(batch: Data) -> int:
    return int(jax.tree.leaves(batch)[0].shape[0])
