"""Examples of other libraries: whatever has a length and gives records by their index."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from nnjax.data._mapped import each_once
from nnjax.data._source import Source, Transform, reading
from nnjax.types import Data, PyTree

Names = str | Sequence[str]


def records(
    dataset: Any,
    x: Names | None = None,
    y: Names | None = None,
    weights: str | None = None,
    *,
    transform: Transform | None = None,
) -> Source:
    """Examples of whatever has a length and gives records by index: Hugging Face's, PyTorch's and Grain's data sets.

    It is asked for many rows at once where it can: `dataset[rows]` where that gives the same as one by one, else
    `dataset.__getitems__(rows)`, else `dataset[row]` for each. The same row must always give the same record: what
    draws at random when it is read makes a run that cannot be repeated.

    Args:
      dataset: has `__len__` and `__getitem__`; a record is a dict, or `(x, y)` or `(x, y, weight)`.
      x: name, or names for a tuple, of x in records that are dicts; None for other records.
      y: the same for y.
      weights: the same for the weight of an example in the loss; None for none.
      transform: what to make of x, see `data.source`.

    Returns:
      A `Source`, see `data.source`.

    Raises:
      TypeError: for what gives no records, or records of another kind.
      ValueError: for names that the records do not have, with those they have, and what `data.source` says.

    >>> squares = [{"number": np.float32([i]), "square": i * i} for i in range(10)]
    >>> data.records(squares, x="number", y="square").gather(np.array([3, 4])).y
    array([ 9, 16], dtype=int32)
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError(f"records: the data set must have __len__ and __getitem__, got {type(dataset).__name__}")
    if (x is None) != (y is None):
        raise ValueError("records: give names of both x and y, or of neither")
    n = len(dataset)
    if n == 0:
        raise ValueError("records: 0 rows")

    def parts(record: Any) -> Data:
        """Of one record, or of a batch of them."""
        if x is not None and y is not None:
            return Data(_pick(record, x), _pick(record, y), None if weights is None else _pick(record, weights))
        if isinstance(record, (tuple, list)) and len(record) in (2, 3):
            return Data(*record)
        hint = f"name them, as in x={next(iter(record))!r}" if isinstance(record, dict) else "wrap the data set"
        raise TypeError(f"records: a record must be (x, y) or (x, y, weight), got {type(record).__name__}; {hint}")

    several = hasattr(dataset, "__getitems__")

    def stacked(rows: np.ndarray) -> Data:
        indices = rows.tolist()
        found = dataset.__getitems__(indices) if several else [dataset[i] for i in indices]
        if len(found) != len(indices):
            raise ValueError(f"records: __getitems__ was asked for {len(indices)} rows, {len(found)} came")
        return jax.tree.map(lambda *values: _array(rows, values), *[_arrays(parts(record)) for record in found])

    def at_once(rows: np.ndarray) -> Data:
        found = parts(dataset[rows])
        return jax.tree.map(lambda column: _array(rows, column), found, is_leaf=lambda node: isinstance(node, list))

    ends = np.array([0, n - 1])
    read = at_once if n > 1 and _gives(at_once, ends, stacked(ends)) else stacked

    return reading(lambda rows: each_once(rows, read), n, transform)


def _gives(read: Callable[[np.ndarray], Data], rows: np.ndarray, expected: Data) -> bool:
    """Whether rows can be had this way, and are what they are one by one."""
    try:
        found = read(rows)
        same = jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(a, b), found, expected)
    except Exception:  # a data set may fail in any way when it is asked for what it does not know
        return False
    return all(jax.tree.leaves(same))


def _pick(record: Any, names: Names) -> PyTree:
    if not isinstance(names, str):
        return tuple(_pick(record, name) for name in names)
    try:
        return record[names]
    except (KeyError, TypeError, IndexError) as error:
        there = f"those of the records are {', '.join(map(str, record))}" if isinstance(record, dict) else "no dict"
        raise ValueError(f"records: there is no {names!r} in a record: {there}") from error


def _arrays(part: Data) -> Data:
    """One record's parts as arrays; lists are arrays too."""
    return jax.tree.map(np.asarray, part, is_leaf=lambda node: isinstance(node, list))


def _array(rows: np.ndarray, values: Any) -> np.ndarray:
    """The values of a column, one for each row, as an array."""
    try:
        return np.asarray(values)
    except ValueError as error:  # "inhomogeneous shape"
        shapes = [np.shape(value) for value in values]
        odd = next(i for i, shape in enumerate(shapes) if shape != shapes[0])
        raise ValueError(
            f"records: all examples must have one shape, row {rows[0]} has {shapes[0]}, row {rows[odd]} {shapes[odd]}; "
            "crop or pad them"
        ) from error
