"""Read examples from .npy files batch by batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnjax.data._csv import open_file
from nnjax.data._mapped import ReadRows, reader
from nnjax.data._npz import first_line
from nnjax.data._source import Source, Transform, source
from nnjax.data._validate import check_numbers

Files = str | Path | Sequence[str | Path]


def open_npy(
    x: Files, y: Files | None = None, weights: Files | None = None, *, transform: Transform | None = None
) -> Source:
    """Read examples from .npy files batch by batch.

    Args:
      x: a file, a list of shards of shape (n_i, ...), or a folder. The folder must contain `x.npy` or shards
        `x-000.npy`, `x-001.npy`, …, which are read in the order of their names. The same is required for y, and
        optional for weights.
      y: one file or a list of shards; None if x is a folder. Shards of y may differ in length from shards of x.
      weights: one file or a list of shards; None means equal weights, or if x is a folder.
      transform: a function of x; see `data.source`.

    Returns:
      A `Source`; see `data.source`.

    Raises:
      FileNotFoundError: if a file is missing, or if `x` is not a folder and `y` is None.
      ValueError: if `x` is a folder and `y` or `weights` is passed, if a file is damaged, empty or not a .npy file of
        numbers, if shards differ in dtype or in an axis other than the first, and as raised by `data.source`.
      TypeError: if an argument is neither a file nor a list of files, and as raised by `data.source`.

    >>> for part in range(3):
    ...     np.save(f"x-{part:03d}.npy", np.full((5, 2), part, np.float32))
    >>> np.save("y.npy", np.arange(15) % 2)
    >>> data.open_npy(".").gather(np.array([0, 14])).x.tolist()
    [[0.0, 0.0], [2.0, 2.0]]
    """
    if isinstance(x, (str, Path)) and Path(x).is_dir():
        if y is not None or weights is not None:
            raise ValueError(f"open_npy: {x} is a folder, so y and weights are read from it; omit y and weights")
        folder = Path(x)
        parts = {part: _find(folder, part) for part in ("x", "y", "weights")}
        if missing := [part for part in ("x", "y") if not parts[part]]:
            raise FileNotFoundError(
                f"open_npy: {folder} holds neither {missing[0]}.npy nor {missing[0]}-000.npy, {missing[0]}-001.npy, …"
            )
    elif y is None:
        raise FileNotFoundError(f"open_npy: {x} is not a folder; pass a folder, or the files of x and of y")
    else:
        parts = {
            "x": _paths("x", x),
            "y": _paths("y", y),
            "weights": [] if weights is None else _paths("weights", weights),
        }
    opened = {part: _open(part, files) for part, files in parts.items() if files}
    return source(**opened, transform=transform)


@dataclass(frozen=True)
class Shards:
    """Several arrays that can be indexed like their concatenation."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    starts: np.ndarray  # the first row of each shard
    read: tuple[ReadRows, ...]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        shard = np.searchsorted(self.starts, rows, side="right") - 1
        batch = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for i in np.unique(shard):
            batch[shard == i] = self.read[i](rows[shard == i] - self.starts[i])
        return batch


def _find(folder: Path, part: str) -> list[Path]:
    file = folder / f"{part}.npy"
    return [file] if file.exists() else sorted(folder.glob(f"{part}-*.npy"))


def _paths(part: str, files: Files) -> list[Path]:
    listed = [files] if isinstance(files, (str, Path)) else files
    if not isinstance(listed, (list, tuple)) or not listed or not all(isinstance(file, (str, Path)) for file in listed):
        raise TypeError(f"open_npy: {part} must be a file, or a list of files, got {files!r:.80}")
    return [Path(file) for file in listed]


def _open_array(file: Path) -> np.memmap:
    """Open a .npy file as a memory-mapped array."""
    open_file(file).close()  # raises for a pipe, on which NumPy would block
    try:
        array = np.lib.format.open_memmap(file, mode="r")
    except Exception as error:  # NumPy raises many types of errors for damaged files
        raise ValueError(f"open_npy: {file} cannot be read as .npy: {first_line(error)}") from error
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(f"open_npy: {file} has the shape {array.shape}; expected (rows, ...) with at least one row")
    try:
        check_numbers(f"open_npy: {file}", array)
    except TypeError as error:
        raise ValueError(str(error)) from error  # the content of the file is wrong, not the type of the argument
    return array


def _open(part: str, files: list[Path]) -> Any:
    """Open one file as a memory-mapped array, or several files as `Shards`."""
    arrays = [_open_array(name) for name in files]
    if len(arrays) == 1:
        return arrays[0]
    for name, array in zip(files, arrays, strict=True):
        if (array.shape[1:], array.dtype) != (arrays[0].shape[1:], arrays[0].dtype):
            raise ValueError(
                f"open_npy: {name} is {array.shape} {array.dtype}, but {files[0]} is {arrays[0].shape} "
                f"{arrays[0].dtype}; all shards of {part} must have the same shape and dtype"
            )
    lengths = [len(array) for array in arrays]
    starts = np.cumsum([0, *lengths[:-1]])
    return Shards((sum(lengths), *arrays[0].shape[1:]), arrays[0].dtype, starts, tuple(map(reader, arrays)))
