"""IDX files, the format of MNIST and Fashion-MNIST."""

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
    """Read the array in an IDX file, gzipped or not.

    Raises:
      ValueError: if the file is truncated or not an IDX file.
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
        raise ValueError(f"{path} is damaged: {len(content)} bytes, the header of {rank} axes alone has {4 + 4 * rank}")
    shape = tuple(np.frombuffer(content, ">u4", rank, 4).tolist())
    dtype = np.dtype(DTYPES[content[2]])
    expected = 4 + 4 * rank + dtype.itemsize * math.prod(shape)
    if len(content) != expected:
        raise ValueError(f"{path} is damaged: {len(content)} bytes, {expected} expected for shape {shape}")
    return np.frombuffer(content, dtype, offset=4 + 4 * rank).reshape(shape)


def read_fashion_mnist(data_dir: str | Path | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training images, training labels, test images and test labels.

    Args:
      data_dir: the folder of the four IDX files. None to look in $NNJAX_DATA_DIR, then in the folder of Debian's
        package dataset-fashion-mnist.

    Raises:
      FileNotFoundError: if a file is missing; the message names the folders and files, and says how to get them.
    """
    directory = data_dir if data_dir is not None else os.environ.get(DIRECTORY)
    folders = [Path(directory), Path(directory) / "fashion-mnist"] if directory else []
    folders += [DEBIAN] if data_dir is None else []
    for folder in folders:
        candidates = [(folder / f"{name}.gz", folder / name) for name in NAMES]
        if all(any(file.is_file() for file in pair) for pair in candidates):
            train_x, train_y, test_x, test_y = (read_idx(gz if gz.is_file() else plain) for gz, plain in candidates)
            return train_x, train_y, test_x, test_y
    listed = ", ".join(str(folder) for folder in folders)
    raise FileNotFoundError(
        f"Fashion-MNIST was not found in {listed}. It needs {', '.join(NAMES)} (or .gz). On Debian and Ubuntu: "
        "apt-get install dataset-fashion-mnist. Elsewhere download the four files from "
        f"https://github.com/zalandoresearch/fashion-mnist and set ${DIRECTORY} to their folder."
    )
