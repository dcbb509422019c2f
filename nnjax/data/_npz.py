"""Read only the arrays x and y of an NPZ file, and refuse arrays that are too large."""

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from nnjax.data._csv import open_file

MOST_NUMBERS = 2**28  # maximum number of elements of an array (2 GiB as float64)
KINDS = "biufSU"  # supported kinds of dtypes: booleans, real numbers and strings


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the arrays x (rows, ...) and y (rows,) of an NPZ file. If the file has no y, return None for it.

    Raises:
      FileNotFoundError, OSError: if the file does not exist or cannot be opened.
      ValueError: if the file is not an NPZ file, is damaged or encrypted, or has no x, or if y does not have one entry
        per row of x. It is also raised if x or y has more than `MOST_NUMBERS` elements, or contains objects, dates or
        complex numbers. The message gives the path.
    """
    with open_file(path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except Exception as error:  # zipfile raises many types of errors for damaged files
            raise ValueError(f"{path} is not an NPZ file: {first_line(error)}") from None
        with archive:
            names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
            arrays = {name: _read(path, archive, name, names) for name in ("x", "y") if name in names}
    if "x" not in arrays or arrays["x"].ndim == 0:
        listed = ", ".join(sorted(names)[:20]) or "no arrays"
        problem = "is a single number, not rows" if "x" in arrays else f"is missing; the file has {listed}"
        raise ValueError(f"{path}: an array named x (rows, ...) {problem}")
    x, y = arrays["x"], arrays.get("y")
    if y is not None and y.shape not in ((len(x),), (len(x), 1)):
        raise ValueError(f"{path}: y must have one entry per row of x, got x {x.shape} and y {y.shape}")
    return x, None if y is None else y.reshape(-1)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type if the message is empty."""
    return str(error).partition("\n")[0] or type(error).__name__


def _read(path: Path, archive: zipfile.ZipFile, name: str, names: list[str]) -> np.ndarray:
    if names.count(name) > 1:
        raise ValueError(f"{path} holds {names.count(name)} arrays named {name}; only one is possible")
    info = archive.infolist()[names.index(name)]
    try:
        with archive.open(info) as member:
            shape, dtype = _read_header(member)
            size = math.prod(shape) * dtype.itemsize
            problem = ""
            if dtype.kind not in KINDS:
                problem = f"it holds {'objects' if dtype.hasobject else dtype}; convert them to numbers"
            elif math.prod(shape) > MOST_NUMBERS or size > 8 * MOST_NUMBERS:
                problem = f"{math.prod(shape):,} numbers are too many to load; write x.npy and y.npy for data.open_npy"
            elif member.tell() + size != info.file_size:
                problem = f"expected {member.tell() + size} bytes for shape {shape}, got {info.file_size}"
        if not problem:
            with archive.open(info) as member:  # reread from the start; reading to the end verifies the checksum
                array = np.lib.format.read_array(member, allow_pickle=False)
                member.read(1)
                return array
    except Exception as error:
        problem = first_line(error)
    raise ValueError(f"{path} cannot be read as NPZ: array {name}: {problem}")


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the .npy format is not supported")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(member)
    return shape, dtype


def read_shape(path: Path) -> tuple[int, ...]:
    """Return the shape of the array x in an NPZ file without reading its elements.

    Raises:
      OSError, ValueError, zipfile.BadZipFile: if the file cannot be read, or has no x.
    """
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        if "x.npy" not in archive.namelist():
            raise ValueError(f"{path}: an array named x (rows, ...) is missing")
        with archive.open("x.npy") as member:
            return _read_header(member)[0]
