"""IDX files, the format of MNIST and its kin."""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
DIRECTORY = "NNJAX_DATA_DIR"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file, gzipped or not.

    Raises:
      ValueError: for another format, or a file cut short.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in DTYPES:
        raise ValueError(f"{path} is not an IDX file")
    rank = content[3]
    if len(content) < 4 + 4 * rank:
        raise ValueError(f"{path} is damaged: {len(content)} bytes, its {rank} axes need {4 + 4 * rank} to begin with")
    shape = tuple(np.frombuffer(content, ">u4", rank, 4).tolist())
    dtype = np.dtype(DTYPES[content[2]])
    expected = 4 + 4 * rank + dtype.itemsize * math.prod(shape)
    if len(content) != expected:
        raise ValueError(f"{path} is damaged: {len(content)} bytes, {expected} expected for shape {shape}")
    return np.frombuffer(content, dtype, offset=4 + 4 * rank).reshape(shape)


def read_fashion_mnist(data_dir: str | Path | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, test images and labels.

    Args:
      data_dir: where the four IDX files are; None for $NNJAX_DATA_DIR, then for where Debian's package puts them.

    Raises:
      FileNotFoundError: with what was looked for and how to get it.
    """
    given = data_dir if data_dir is not None else os.environ.get(DIRECTORY)
    places = [Path(given), Path(given) / "fashion-mnist"] if given else []
    places += [DEBIAN] if data_dir is None else []
    for place in places:
        files = [next((f for f in (place / f"{name}.gz", place / name) if f.is_file()), None) for name in NAMES]
        found = [file for file in files if file is not None]
        if len(found) == len(NAMES):
            train_x, train_y, test_x, test_y = (read_idx(file) for file in found)
            return train_x, train_y, test_x, test_y
    looked = ", ".join(str(place) for place in places)
    raise FileNotFoundError(
        f"Fashion-MNIST was not found in {looked}. It needs {', '.join(NAMES)} (or .gz). On Debian and Ubuntu: "
        "apt-get install dataset-fashion-mnist. Elsewhere download the four files from "
        f"https://github.com/zalandoresearch/fashion-mnist and name their folder by --data-dir or ${DIRECTORY}."
    )
