"""Examples that are read from where they lie, for data that outgrow memory."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from nnjax import checks
from nnjax.data._mapped import reader
from nnjax.data._validate import (
    cast,
    check_finite,
    check_label_range,
    check_numbers,
    warn_of_casts,
    x64,
)
from nnjax.types import Data, PyTree

SAMPLE = 1024  # rows looked at before training
PIECE = 2**20  # bytes read at a time

Transform = Callable[[PyTree], PyTree]
Read = Callable[[np.ndarray], Data]  # rows (m,) -> m examples as they are stored


class Source(NamedTuple):
    """Random access to examples: a run gathers its batches from it, ahead of the steps that need them.

    Made by `data.source`, `data.open_npy` or `data.records`, or by hand.
    """

    n: int
    gather: Callable[[np.ndarray], Data]  # rows (m,) -> the examples, NumPy arrays, float32 and int32
    bytes_per_row: int
    digest: str  # of what the examples are, to tell another source from this one


def source(x: PyTree, y: PyTree, weights: Any = None, *, transform: Transform | None = None) -> Source:
    """Arrays that are read batch by batch: memory-mapped files, HDF5 or Zarr data sets, arrays in memory.

    Training gives the same bits as with all of `transform(x)` in memory. Of a memory-mapped file only the pages in
    use stay resident, but for the operating system's cache.

    Args:
      x: an array (n, ...), or a pytree of them; whatever has `shape`, `dtype`, and takes an index array.
      y: the same.
      weights: (n,), one for each example in the loss, or None.
      transform: what to make of x, row by row: (m, ...) -> (m, ...), for m rows at a time, as they are stored.

    Returns:
      A `Source`. Numbers are cast as `data.validate` casts them. Its digest covers lengths, shapes, dtypes and 1024
      rows spread evenly, the first and the last among them: a change elsewhere is not noticed.

    Raises:
      ValueError: for no rows, different lengths, and for values that are not finite: those of the 1024 rows at once,
        others when they are gathered, with their rows.
      TypeError: for what is no array, and for strings and objects.

    Warns:
      UserWarning: as `data.validate`, once, by what the 1024 rows hold.

    >>> x = np.lib.format.open_memmap("x.npy", "w+", np.uint8, (1000, 64))
    >>> images = data.source(x, np.arange(1000) % 10, transform=lambda x: x / 255)
    >>> run = train.Run(nn.mlp([32], 10), losses.cross_entropy, optim.adam(1e-3), batch_size=32)
    >>> train.fit(run, images, epochs=2).losses.shape
    (63,)
    """
    for part, tree in (("x", x), ("y", y)):
        for leaf in jax.tree.leaves(tree):
            if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
                raise TypeError(f"source: {part} must be arrays with shape and dtype, got {type(leaf).__name__}")
            if not leaf.shape:
                raise ValueError(f"source: {part} must have a leading axis of rows, got one number")
    columns = Data(x, y, weights)
    lengths = {checks.path_name(path): leaf.shape[0] for path, leaf in jax.tree_util.tree_leaves_with_path(columns)}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key} has {n}" for key, n in lengths.items())
        raise ValueError(f"source: all parts must have the same number of rows, {listed}")
    readers = jax.tree.map(reader, columns)
    return reading(
        lambda rows: jax.tree.map(lambda read: read(rows), readers), next(iter(lengths.values()), 0), transform
    )


def reading(read: Read, n: int, transform: Transform | None = None) -> Source:
    """A source of what `read` gives, cast and checked.

    Raises:
      ValueError: for no rows; when gathering, where shapes or dtypes are others than those of the first rows.
    """
    if n < 1:
        raise ValueError("source: 0 rows")

    def stored(rows: np.ndarray) -> Data:
        x, y, weights = read(rows)
        return jax.tree.map(np.asarray, Data(x if transform is None else transform(x), y, weights))

    wide = x64()
    first = stored(np.zeros(1, np.int64))
    tree: Any = jax.tree.structure(first)
    kinds = [(leaf.shape[1:], leaf.dtype) for leaf in jax.tree.leaves(first)]
    names = [name for name, _ in _named(first)]
    for name, leaf in _named(first):
        check_numbers(name, leaf)

    def gather(rows: np.ndarray) -> Data:
        found = stored(rows)
        leaves = jax.tree.leaves(found)
        alike = tree == jax.tree.structure(found) and kinds == [(leaf.shape[1:], leaf.dtype) for leaf in leaves]
        if not alike or any(leaf.shape[:1] != (len(rows),) for leaf in leaves):
            raise ValueError(
                f"source: rows {_some(rows)} came as {_text(found, len(rows))}; expected {_text(first, 1)}, as row 0 is"
            )
        for i, (name, leaf) in enumerate(zip(names, leaves, strict=True)):
            check_finite(name, leaf, rows)
            leaves[i] = cast(name, leaf, features=_is_x(name), wide=wide, rows=rows)
        if found.weights is not None:
            if (found.weights < 0).any():
                worst = int(found.weights.argmin())
                raise ValueError(f"data.weights must be ≥ 0, got {found.weights[worst]:g} in row {rows[worst]}")
            leaves[-1] = leaves[-1].astype(np.float64 if wide else np.float32, copy=False)
        return jax.tree.unflatten(tree, leaves)

    row = gather(np.zeros(1, np.int64))
    bytes_per_row = sum(leaf.nbytes for leaf in jax.tree.leaves(row))
    digest = hashlib.sha256(f"{n} {_text(row, 1)}".encode())
    largest = dict.fromkeys(names, 0.0)
    for rows in pieces(np.unique(np.linspace(0, n - 1, SAMPLE).astype(np.int64)), bytes_per_row):
        for name, leaf in _named(gather(rows)):
            digest.update(np.ascontiguousarray(leaf).tobytes())
            largest[name] = max(largest[name], float(leaf.max(initial=0)))
    for name, leaf in _named(first):
        if _is_x(name) and (transform is None or leaf.dtype == np.uint8):  # x / 255 makes float64, as meant
            warn_of_casts(name, leaf.dtype, largest[name], wide)
    return Source(n, gather, bytes_per_row, digest.hexdigest())


def pieces(rows: np.ndarray, bytes_per_row: int) -> list[np.ndarray]:
    """Rows in parts small enough to be checked and cast while they are in the processor's cache."""
    size = min(4096, max(1, PIECE // max(1, bytes_per_row)))
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def labels_below(found: Source, prediction_shape: tuple[int, ...]) -> Source:
    """The source with its labels checked as they are gathered, see `data.check_label_range`."""

    def gather(rows: np.ndarray) -> Data:
        part = found.gather(rows)
        check_label_range(part.y, (len(rows), *prediction_shape[1:]), "data", rows)
        return part

    return found._replace(gather=gather)


def _named(data: Data) -> list[tuple[str, np.ndarray]]:
    """The leaves, each with its name: data.x, data.y/0…"""
    leaves = jax.tree_util.tree_leaves_with_path(data)
    return [(f"data.{checks.path_name(path)}", leaf) for path, leaf in leaves]


def _is_x(name: str) -> bool:
    return name.removeprefix("data.").split("/")[0] == "x"


def _text(data: Data, rows: int) -> str:
    """Name, shape and dtype of each leaf; the first axis is "rows" where there are as many."""

    def shape(leaf: np.ndarray) -> str:
        first = ["rows" if size == rows else str(size) for size in leaf.shape[:1]]
        return f"({', '.join([*first, *map(str, leaf.shape[1:])])})"

    return ", ".join(f"{name} {shape(leaf)} {leaf.dtype}" for name, leaf in _named(data))


def _some(rows: np.ndarray) -> str:
    shown = ", ".join(map(str, rows[:3]))
    return f"{shown} … {rows[-1]} ({len(rows)} of them)" if len(rows) > 3 else shown
