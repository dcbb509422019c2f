"""Rows of a file, without the file's pages piling up in the process."""

import mmap
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nnjax.types import PyTree

SLOW = 20e-6  # seconds for a row: more than memory takes, so that the disk is at work
AHEAD = 100  # readings announced after a slow one
RESIDENT = 128 * 2**20  # bytes of a file that are mapped at a time
PAGE = 2 * 2**20  # the largest that a system maps for one byte that is read

ReadRows = Callable[[np.ndarray], np.ndarray]  # rows (m,) -> (m, ...)


def reader(array: Any) -> ReadRows:
    """How rows of an array are read: in memory, in a mapped file, or whatever takes an index array."""
    if isinstance(array, np.memmap) and _droppable(array):
        return _mapped(array)
    if isinstance(array, np.ndarray) or type(array).__module__.startswith("jax"):
        there = np.asarray(array)
        return lambda rows: np.take(there, rows, axis=0)

    return lambda rows: each_once(rows, lambda once: np.asarray(array[once]))


def each_once(rows: np.ndarray, read: Callable[[np.ndarray], PyTree]) -> PyTree:
    """What `read` gives for rows, asked for each row once and in ascending order, as HDF5 wants it.

    Raises:
      ValueError: where it gives another number of rows.
    """
    once, place = np.unique(rows, return_inverse=True)
    found = read(once)
    for leaf in jax.tree.leaves(found):
        if leaf.shape[:1] != once.shape:
            raise ValueError(f"source: {len(once)} rows were asked for, an array of shape {leaf.shape} came")
    return jax.tree.map(lambda a: a[place], found)


def _mapped(array: np.memmap) -> ReadRows:
    """Rows of a mapped file, whose pages are let go again soon.

    A page that was read stays mapped, and counts as the process's own memory until it is let go; in the operating
    system's cache it stays as long as there is room. Where reading turns out to be slow, rows are announced before
    they are read: a disk is many times faster with many of them in sight than with one after another.
    """
    file: Any = getattr(array, "_mmap")  # noqa: B009  (its annotations do not know it)
    plain = np.asarray(array)
    start = plain.__array_interface__["data"][0] - np.frombuffer(file, np.uint8).__array_interface__["data"][0]
    width, apart = plain[:1].nbytes, plain.strides[0]
    few, near = max(1, RESIDENT // PAGE), max(1, RESIDENT // max(1, abs(apart)))
    announced = 1  # readings to announce

    def announce(rows: np.ndarray) -> None:
        first = start + rows.astype(np.int64) * apart
        page = first - first % mmap.PAGESIZE
        for at, size in zip(page.tolist(), (first + width - page).tolist(), strict=True):
            file.madvise(mmap.MADV_WILLNEED, at, size)

    def read(rows: np.ndarray) -> np.ndarray:
        nonlocal announced
        if (rows[1:] < rows[:-1]).any():
            return each_once(rows, read)
        if len(rows) and (rows[0] < 0 or rows[-1] >= len(plain)):
            raise IndexError(f"source: rows must be in 0 … {len(plain) - 1}, got {rows[0]} … {rows[-1]}")
        clock = time.perf_counter()
        if announced > 0 and plain.flags.c_contiguous:
            announce(rows)
        found = np.empty((len(rows), *plain.shape[1:]), plain.dtype)
        i = 0
        while i < len(rows):  # rows that are few, or near to each other
            j = max(i + few, int(np.searchsorted(rows, rows[i] + near)))
            np.take(plain, rows[i:j], axis=0, out=found[i:j], mode="clip")  # other modes copy once more
            file.madvise(mmap.MADV_DONTNEED)
            i = j
        announced = AHEAD if time.perf_counter() - clock > SLOW * len(rows) else announced - 1
        return found

    return read


def _droppable(array: np.memmap) -> bool:
    """Letting pages go loses nothing: not so for those written to a copy of one's own, mode "c"."""
    file = getattr(array, "_mmap", None)
    return hasattr(mmap, "MADV_DONTNEED") and isinstance(file, mmap.mmap) and array.mode in ("r", "r+", "w+")
