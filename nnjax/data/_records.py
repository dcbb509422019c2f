"""Read examples from the data sets of other libraries, which return records by index."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from nnjax.data._mapped import read_unique
from nnjax.data._source import Source, Transform, make_source
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
    """Read batches from a data set that returns records by index, as in Hugging Face Datasets, PyTorch or Grain.

    A batch is read as `dataset[rows]` if this returns the same as reading single rows. Otherwise, it is read as
    `dataset.__getitems__(rows)` if this method exists, or as `dataset[row]` for each row. A row must always return the
    same record; if the data set draws random numbers during reading, the run is not reproducible.

    Args:
      dataset: an object with `__len__` and `__getitem__`. A record is a dict, `(x, y)` or `(x, y, weight)`.
      x: the key of x in records that are dicts, or several keys for a tuple of arrays; None if records are tuples.
      y: the key or keys of y, like `x`.
      weights: the key of the per-example loss weight; None means equal weights.
      transform: a function of x; see `data.source`.

    Returns:
      A `Source`; see `data.source`.

    Raises:
      TypeError: if the object is not a data set, or if no keys are passed and its records are not `(x, y)` or
        `(x, y, weight)`.
      ValueError: if the data set is empty, if only one of `x` and `y` or only `weights` is passed, if a record lacks
        one of the keys, if records differ in shape, and as raised by `data.source`.

    >>> squares = [{"number": np.float32([i]), "square": i * i} for i in range(10)]
    >>> data.records(squares, x="number", y="square").gather(np.array([3, 4])).y
    array([ 9, 16], dtype=int32)
    """
    sized = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if not sized or isinstance(dataset, (str, bytes, Mapping)) or getattr(dataset, "shape", (1,)) == ():
        hint = "; pass one of its parts, such as dataset['train']" if isinstance(dataset, Mapping) else ""
        raise TypeError(f"records: dataset must have __len__ and __getitem__, got {type(dataset).__name__}{hint}")
    if (x is None) != (y is None):
        raise ValueError("records: got a key for only one of x and y; pass both, or neither")
    if weights is not None and (x is None or not isinstance(weights, str)):
        raise ValueError(f"records: weights must be a key, and requires keys for x and y, got {weights!r:.80}")
    n = len(dataset)
    if n == 0:
        raise ValueError("records: the data set has 0 rows; at least 1 is needed")

    def parts(record: Any) -> Data:
        """Return the x, y and weights of a record or a batch."""
        if x is not None and y is not None:
            return Data(_pick(record, x), _pick(record, y), None if weights is None else _pick(record, weights))
        if isinstance(record, (tuple, list)) and len(record) in (2, 3):
            return Data(*record)
        hint = (
            f"name its keys, as in x={next(iter(record))!r}"
            if isinstance(record, dict)
            else ("wrap the data set so that it returns such tuples")
        )
        raise TypeError(
            f"records: a record of dataset must be (x, y) or (x, y, weight), got {type(record).__name__}; {hint}"
        )

    def read_records(rows: np.ndarray) -> Data:
        indices = rows.tolist()
        batch = dataset.__getitems__(indices) if hasattr(dataset, "__getitems__") else [dataset[i] for i in indices]
        if len(batch) != len(indices):
            raise ValueError(f"records: __getitems__ returned {len(batch)} records for {len(indices)} rows")
        arrays = [jax.tree.map(np.asanyarray, parts(record), is_leaf=_is_list) for record in batch]
        return jax.tree.map(lambda *values: _array(rows, values), *arrays)

    def read_batch(rows: np.ndarray) -> Data:
        return jax.tree.map(lambda column: _array(rows, column), parts(dataset[rows]), is_leaf=_is_list)

    ends = np.array([0, n - 1])
    read = read_batch if n > 1 and _returns(read_batch, ends, read_records(ends)) else read_records
    return make_source(lambda rows: read_unique(rows, read), n, transform)


def _returns(read: Callable[[np.ndarray], Data], rows: np.ndarray, expected: Data) -> bool:
    try:
        same = jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(a, b), read(rows), expected)
    except Exception:  # a data set that does not support index arrays may raise any error
        return False
    return all(jax.tree.leaves(same))


def _pick(record: Any, names: Names) -> PyTree:
    if not isinstance(names, str):
        return tuple(_pick(record, name) for name in names)
    try:
        return record[names]
    except (KeyError, TypeError, IndexError) as error:
        keys = f"its keys are {', '.join(map(str, record))}" if isinstance(record, dict) else "it is not a dict"
        raise ValueError(f"records: a record has no {names!r}; {keys}") from error


def _is_list(node: Any) -> bool:
    return isinstance(node, list)


def _array(rows: np.ndarray, values: Any) -> np.ndarray:
    """Convert the values of a column, one per row, to an array."""
    try:
        masked = isinstance(values, tuple) and any(isinstance(value, np.ma.MaskedArray) for value in values)
        return np.ma.stack(values) if masked else np.asanyarray(values)
    except ValueError as error:  # NumPy reports an "inhomogeneous shape"
        shapes = [np.shape(value) for value in values]
        i = next(i for i, shape in enumerate(shapes) if shape != shapes[0])
        raise ValueError(
            f"records: all examples must have the same shape, row {rows[0]} has {shapes[0]}, row {rows[i]} has "
            f"{shapes[i]}; crop or pad them"
        ) from error
