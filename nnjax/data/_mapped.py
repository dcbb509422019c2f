"""Rows of a file, without the file's pages piling up in the process."""

import mmap
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nnjax.types import PyTree

WIDE = 1024  # bytes of a row from which a call to the system costs less than to map its page
RESIDENT = 128 * 2**20  # bytes of a file that are mapped at a time
PAGE = 2 * 2**20  # the most that a system maps for one byte that is read
MISSING = 0.05  # pages a row, that come from the disk, from which it pays to announce rows

ReadRows = Callable[[np.ndarray], np.ndarray]  # rows (m,) -> (m, ...)


def reader(array: Any) -> ReadRows:
    """How rows of an array are read: from a mapped file, from memory, or from whatever takes an index array.

    A page that was read through a map stays mapped, and counts as the process's own memory. So rows of a mapped file
    are read past the map, or, where they are narrow, the pages are let go again soon. In the operating system's cache
    they stay as long as there is room.
    """
    if isinstance(array, np.memmap):
        return _file_reader(array)
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


def _file_reader(array: np.memmap) -> ReadRows:
    """Rows of a mapped file; those on the disk are announced, for it is many times faster when it knows what comes."""
    plain = np.asarray(array)
    file: Any = getattr(array, "_mmap", None)
    shared = isinstance(file, mmap.mmap) and array.mode in ("r", "r+", "w+")  # "c" has changes of its own in its pages
    if not (shared and plain.flags.c_contiguous and hasattr(mmap, "MADV_DONTNEED")):
        return lambda rows: np.take(plain, rows, axis=0)
    start = _address(plain) - _address(np.frombuffer(file, np.uint8))
    width, announced = plain.strides[0], True
    read_rows = (_past_the_map(array, start) if width >= WIDE else None) or _through_the_map(plain, file)

    def read(rows: np.ndarray) -> np.ndarray:
        nonlocal announced
        if len(rows) and (rows.min() < 0 or rows.max() >= len(plain)):
            raise IndexError(f"source: rows must be in 0 … {len(plain) - 1}, got {rows.min()} … {rows.max()}")
        before = pages_from_disk()
        if announced:
            announce(file, start + rows.astype(np.int64) * width, width)
        found = read_rows(rows)
        announced = pages_from_disk() - before > MISSING * len(rows)
        return found

    return read


def _through_the_map(plain: np.ndarray, file: Any) -> ReadRows:
    few, near = max(1, RESIDENT // PAGE), max(1, RESIDENT // max(1, plain.strides[0]))

    def read(rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), *plain.shape[1:]), plain.dtype)
        i = 0
        while i < len(rows):  # rows that are few, or near to each other, as sorted ones are
            j = max(i + few, int(np.searchsorted(rows, rows[i] + near)))
            np.take(plain, rows[i:j], axis=0, out=found[i:j], mode="clip")  # other modes copy once more
            file.madvise(mmap.MADV_DONTNEED)
            i = j
        return found

    return read


def _past_the_map(array: np.memmap, start: int) -> ReadRows | None:
    """By calls to the system, into the result; None where that does not give what the map holds."""
    if array.filename is None or not hasattr(os, "preadv"):
        return None
    descriptor = os.open(array.filename, os.O_RDONLY)
    start += array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    kind, width, name = (array.dtype, array.shape[1:]), array.strides[0], array.filename

    def read(rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), width), np.uint8)
        room = memoryview(found.reshape(-1))  # type: ignore[arg-type]
        places = range(0, len(rows) * width, width)
        for at, place in zip((start + rows.astype(np.int64) * width).tolist(), places, strict=True):
            if os.preadv(descriptor, (room[place : place + width],), at) < width:
                raise OSError(f"{name} ends before byte {at + width}; it was longer when it was opened")
        return found.view(kind[0]).reshape(len(rows), *kind[1])

    weakref.finalize(read, os.close, descriptor)
    ends = np.array([0, len(array) - 1])
    try:  # another file may have the name by now
        same = read(ends).tobytes() == np.take(np.asarray(array), ends, axis=0).tobytes()
    except OSError:
        same = False
    return read if same else None


def announce(file: Any, first: np.ndarray, width: int) -> None:
    """That so many bytes from each place in a map will be read."""
    page = first - first % mmap.PAGESIZE
    for at, size in zip(page.tolist(), (first + width - page).tolist(), strict=True):
        file.madvise(mmap.MADV_WILLNEED, at, size)


def pages_from_disk() -> float:
    """Pages that had to be read for this thread since it began; 0 where the system does not count them."""
    if sys.platform != "linux":
        return 0.0
    import resource

    return resource.getrusage(resource.RUSAGE_THREAD).ru_inblock * 512 / mmap.PAGESIZE


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])
