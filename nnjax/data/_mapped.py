"""Read rows of arrays, and release the memory of memory-mapped files after each read."""

import mmap
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nnjax.types import PyTree

WIDE = 1024  # minimum bytes of a row to prefetch; for shorter rows, madvise costs more than it saves

ReadRows = Callable[[np.ndarray], np.ndarray]  # rows (m,) -> (m, ...)


def reader(array: Any) -> ReadRows:
    """Return a function that reads rows from a memory-mapped file, an array, or an object that accepts array indices.

    Raises:
      IndexError, OSError: when the returned function is called, if rows are out of range, or if the mapped file has
        been truncated.
      ValueError: when the returned function is called, if an object returns a different number of rows.
    """
    if isinstance(array, np.memmap):
        return _file_reader(array)
    if isinstance(array, np.ma.MaskedArray):
        return lambda rows: array[rows]  # np.take would lose the mask
    if isinstance(array, (np.ndarray, jax.Array)):
        in_memory = np.asarray(array)
        return lambda rows: np.take(in_memory, rows, axis=0)
    return lambda rows: read_unique(rows, lambda unique: np.asanyarray(array[unique]))


def read_unique(rows: np.ndarray, read: Callable[[np.ndarray], PyTree]) -> PyTree:
    """Read each distinct row once, in ascending order as HDF5 requires, and return the rows in the requested order.

    Raises:
      ValueError: if `read` returns a different number of rows.
    """
    unique, place = np.unique(rows, return_inverse=True)
    batch = read(unique)
    for leaf in jax.tree.leaves(batch):
        if leaf.shape[:1] != unique.shape:
            raise ValueError(
                f"source: got an array of shape {leaf.shape} for {len(unique)} rows; the first axis must be the rows"
            )
    return jax.tree.map(lambda a: a[place], batch)


def _file_reader(array: np.memmap) -> ReadRows:
    """Return a function that reads rows of a mapped file and then releases its pages from the process.

    The operating system still caches the pages. Wide rows are prefetched, because a disk is many times faster if it
    knows all requests in advance.
    """
    plain = np.asarray(array)
    file: Any = getattr(array, "_mmap", None)
    shared = isinstance(file, mmap.mmap) and array.mode != "c"  # pages in mode "c" may contain private changes
    if not (shared and hasattr(mmap, "MADV_DONTNEED")):
        return lambda rows: np.take(plain, rows, axis=0)
    start = _address(plain) - _address(np.frombuffer(file, np.uint8))
    end = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY + len(file)
    width = plain.strides[0]
    announce = width >= WIDE and plain.flags.c_contiguous

    def read(rows: np.ndarray) -> np.ndarray:
        if len(rows) and (rows.min() < 0 or rows.max() >= len(plain)):
            raise IndexError(f"source: rows must be in 0 … {len(plain) - 1}, got {rows.min()} … {rows.max()}")
        if file.size() < end:  # reading beyond the end of the file would kill the process
            raise OSError(
                f"source: {array.filename} has shrunk to {file.size()} bytes, expected at least {end}; do not change "
                "it while it is read"
            )
        if announce:
            first = start + rows.astype(np.int64) * width
            page = first - first % mmap.PAGESIZE
            for position, size in zip(page.tolist(), (first + width - page).tolist(), strict=True):
                file.madvise(mmap.MADV_WILLNEED, position, size)
        batch = np.take(plain, rows, axis=0)
        file.madvise(mmap.MADV_DONTNEED)
        return batch

    return read


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])
