"""Read examples batch by batch, for data larger than memory."""

import hashlib
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import numpy as np

from nnjax import checks
from nnjax.data._mapped import reader
from nnjax.data._validate import as_arrays, as_data, convert, count_rows, is_x, named_leaves, warn_of_cast
from nnjax.types import Data, PyTree

SAMPLE = 1024  # maximum number of rows that are checked before training
PIECE = 2**20  # bytes to read at a time
ROW = np.zeros(1, np.int64)  # row 0, which determines shapes and dtypes

Transform = Callable[[PyTree], PyTree]
Read = Callable[[np.ndarray], Data]  # rows (m,) -> m examples as stored


class Source(NamedTuple):
    """Examples that `fit` reads batch by batch, by row number, in the background.

    `data.source`, `data.open_npy`, `data.records` and `data.batches` return a `Source`. To create a custom one, set the
    first four fields. The batches from `gather` are checked and converted as in `data.source`.
    """

    n: int  # number of examples
    gather: Callable[[np.ndarray], Data]  # rows (m,) -> m examples with the same shapes and dtypes as row 0
    bytes_per_row: int  # after conversion; measured again before training
    digest: str  # string that differs between sources with different examples
    in_order: bool = False  # True if rows can only be read once and in order, as from a generator


def source(x: PyTree, y: PyTree, weights: Any = None, *, transform: Transform | None = None) -> Source:
    """Read arrays batch by batch: memory-mapped files, HDF5 or Zarr data sets, or arrays in memory.

    Training gives a result that is bitwise identical to training with all of `transform(x)` in memory. Only a few pages
    of a memory-mapped file are mapped at a time; the file cache of the operating system may contain more.

    Args:
      x: an array (n, ...) or a pytree of arrays: objects with `shape` and `dtype` that can be indexed by an array.
      y: targets, like `x`.
      weights: (n,), per-example loss weights; None means equal weights.
      transform: a function of x that acts on each row separately, (m, ...) -> (m, ...). It receives each batch as
        stored.

    Returns:
      A `Source`. Numbers are converted as in `data.validate`. The digest covers the lengths, shapes, dtypes and up to
      1024 evenly spaced rows, including the first and last; changes in other rows are not detected.

    Raises:
      ValueError: if there are no rows, if the numbers of rows differ, if weights are negative or all 0, or if values
        are not finite. The rows of the digest are checked immediately, other rows when they are gathered; the message
        names the row. Weights in a file that are all 0 are detected only after every row has been gathered.
      TypeError: if an object has no shape or dtype, if an array contains strings or objects, or if `transform` is not a
        function.

    Warns:
      UserWarning: if x will be cast to a narrower float dtype or is unscaled uint8, based on the rows of the digest.

    >>> x = np.lib.format.open_memmap("x.npy", "w+", np.uint8, (1000, 64))
    >>> images = data.source(x, np.arange(1000) % 10, transform=lambda x: x / 255)
    >>> run = train.Run(nn.mlp([32], 10), losses.cross_entropy, optim.adam(1e-3), batch_size=32)
    >>> train.fit(run, images, epochs=2).losses.shape
    (63,)
    """
    columns = Data(x, y, weights)
    for name, leaf in named_leaves(columns, "source"):
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise TypeError(f"{name} must be an array with shape and dtype, got {type(leaf).__name__}")
        if not leaf.shape:
            raise ValueError(f"{name} must have a leading axis of rows, got a scalar")
    n = count_rows("source", columns)
    if isinstance(weights, np.ndarray | jax.Array) and not isinstance(weights, np.memmap) and not np.any(weights):
        raise ValueError(f"source: the weights of all {n} rows are 0; choose other rows")
    readers = jax.tree.map(reader, columns)
    return make_source(lambda rows: jax.tree.map(lambda read: read(rows), readers), n, transform)


def make_source(read: Read, n: int, transform: Transform | None = None) -> Source:
    """Make a source from a function that reads examples, and check and convert these examples.

    Args:
      read: rows (m,) -> m examples as stored.
      n: number of examples, at least 1.
      transform: see `source`.

    Raises:
      ValueError, TypeError: as raised by `source`, and by `CheckedGather`, which also checks later calls of `gather`.
    """
    checks.positive_int("Source", "n", n)
    if transform is not None:
        checks.function_of("source", "transform", transform, "x")

    def stored(rows: np.ndarray) -> Data:
        x, y, weights = read(rows)
        return Data(x if transform is None else transform(x), y, weights)

    gather = CheckedGather(stored, n)
    row, first = gather(ROW), gather.first
    bytes_per_row = sum(leaf.nbytes for leaf in jax.tree.leaves(row))
    digest = hashlib.sha256(f"{n} {_describe(row, 1)}".encode())
    largest = {name: 0.0 for name, _ in named_leaves(first)}
    for rows in pieces(np.unique(np.linspace(0, n - 1, SAMPLE).astype(np.int64)), bytes_per_row):
        for name, leaf in named_leaves(gather(rows)):
            digest.update(np.ascontiguousarray(leaf).tobytes())
            if leaf.dtype.kind != "c":
                largest[name] = max(largest[name], float(leaf.max(initial=0)))
    for name, leaf in named_leaves(first):
        if is_x(name) and (transform is None or leaf.dtype == np.uint8):  # no warning if x / 255 gives float64
            warn_of_cast(name, leaf.dtype, largest[name])
    return Source(n, gather, bytes_per_row, digest.hexdigest())


def check_source(source: Source, keep: Collection[str] = ()) -> Source:
    """Check a source, and return it with a `gather` that checks the examples and does not cast the leaves `keep` of x.

    Raises:
      ValueError, TypeError: if a field has the wrong type or value, and as raised by `CheckedGather`.
    """
    where = "Source"
    checks.positive_int(where, "n", source.n)
    checks.positive_int(where, "bytes_per_row", source.bytes_per_row, 0)
    checks.function_of(where, "gather", source.gather, "rows")
    if not isinstance(source.digest, str):
        raise TypeError(f"{where}: digest must be a string that changes with the examples, got {source.digest!r}")
    if isinstance(source.gather, CheckedGather):
        if not keep:
            return source
        gather = source.gather.keeping(keep)
    else:
        gather = CheckedGather(source.gather, source.n, keep)
        for name, leaf in named_leaves(gather.first):
            if is_x(name):
                warn_of_cast(name, leaf.dtype, 0)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(gather(ROW)))
    return source._replace(gather=gather, bytes_per_row=size)


class CheckedGather:
    """A function that reads the examples of a source by their rows, checks them, and converts them.

    Raises:
      ValueError: if the number of rows is wrong, if shapes or dtypes differ from row 0, if all weights are 0, and as
        raised by `data.validate`. A note gives the rows, even for errors raised by the source itself.
      TypeError: if the source returns neither `Data` nor a tuple, or if an array contains strings or objects.
    """

    def __init__(self, gather: Callable[[np.ndarray], Any], n: int | None, keep: Collection[str] = ()):
        """Wrap the `gather` function of a source with `n` rows, and read row 0.

        Args:
          gather: the function.
          n: number of rows, to detect that all weights are 0; None skips this check.
          keep: see `data.validate`.
        """
        self._gather, self._n, self._keep = gather, n, keep
        self._weightless = None if n is None else np.zeros(n, bool)  # rows with weight 0; None after a positive weight
        self.first = self._read(ROW)

    def __call__(self, rows: np.ndarray) -> Data:
        """Return the examples in the given rows."""
        batch = self._read(rows)
        if _layout(batch) != _layout(self.first):
            raise ValueError(
                f"source: {_list_rows(rows)} are {_describe(batch, len(rows))}; "
                f"expected {_describe(self.first, 1)}, as in row 0"
            )
        batch = convert(batch, rows, keep=self._keep)
        if batch.weights is not None and self._weightless is not None:
            self._check_weights(np.asarray(batch.weights), self._weightless, rows)
        return batch

    def keeping(self, names: Collection[str]) -> "CheckedGather":
        """Return a copy that does not cast the named leaves of x."""
        return CheckedGather(self._gather, self._n, names)

    def _check_weights(self, weights: np.ndarray, weightless: np.ndarray, rows: np.ndarray) -> None:
        """Raise ValueError if all rows have been read and all their weights are 0."""
        if np.any(weights):
            self._weightless = None
            return
        weightless[rows] = True
        if weightless.all():
            raise ValueError(f"source: the weights of all {len(weightless)} rows are 0; choose other rows")

    def _read(self, rows: np.ndarray) -> Data:
        """Read the examples as arrays, and check that the length of their first axis is the number of rows."""
        with checks.located(f"in the source, which was asked for {_list_rows(rows)}"):
            batch = self._gather(rows.copy())  # a copy, because the function may sort the rows in place
            if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
                raise TypeError(f"source: gather must return Data(x, y) or (x, y, weights), got {type(batch).__name__}")
            arrays = as_arrays(as_data(batch), rows)
            wrong = [leaf.shape for _, leaf in named_leaves(arrays) if len(leaf) != len(rows)]
            if wrong or not jax.tree.leaves(arrays.x):
                raise ValueError(
                    f"source: gather returned {_describe(arrays, len(rows)) or 'no arrays'} for {len(rows)} rows; the "
                    f"first axis must be the rows, ({len(rows)}, …)"
                )
        return arrays


def pieces(rows: np.ndarray, bytes_per_row: int) -> list[np.ndarray]:
    """Split rows into pieces that fit into the CPU cache during checks and conversion."""
    size = min(4096, max(1, PIECE // max(1, bytes_per_row)))
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def _layout(data: Data) -> tuple[Any, list[tuple[tuple[int, ...], np.dtype[Any]]]]:
    return jax.tree.structure(data), [(leaf.shape[1:], leaf.dtype) for leaf in jax.tree.leaves(data)]


def _describe(data: Data, n: int) -> str:
    """Describe each leaf by name, shape and dtype; the first axis is called "rows" if it has length n."""

    def shape(leaf: np.ndarray) -> str:
        first = ["rows" if size == n else str(size) for size in leaf.shape[:1]]
        return f"({', '.join([*first, *map(str, leaf.shape[1:])])})"

    return ", ".join(f"{name} {shape(leaf)} {leaf.dtype}" for name, leaf in named_leaves(data))


def _list_rows(rows: np.ndarray) -> str:
    first = ", ".join(map(str, rows[:3]))
    return f"rows {first} … {rows[-1]} ({len(rows)} rows)" if len(rows) > 3 else f"rows {first}"
