"""Read IDX files, the format of MNIST and Fashion-MNIST."""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from nnjax.data._csv import open_file
from nnjax.data._npz import MOST_NUMBERS
from nnjax.storage.paths import as_path

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MOST_AXES = 32
CLASSES = 10
DIRECTORY = "NNJAX_DATA_DIR"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def read_idx(path: Path) -> np.ndarray:
    """Read the array in an IDX file, which may be gzipped.

    Raises:
      FileNotFoundError, OSError: if the file does not exist or cannot be opened.
      ValueError: if the file is damaged, is not an IDX file, or has more than `MOST_NUMBERS` elements.
    """
    try:
        with open_file(path) as opened, gzip.open(opened) if path.suffix == ".gz" else opened as file:
            start = file.read(4)
            if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in DTYPES or start[3] > MOST_AXES:
                raise ValueError(f"{path} is not an IDX file")
            axes = file.read(4 * start[3])
            if len(axes) < 4 * start[3]:
                raise ValueError(
                    f"{path} is damaged: it has {4 + len(axes)} bytes, but a header for {start[3]} axes has "
                    f"{4 + 4 * start[3]}"
                )
            shape = tuple(np.frombuffer(axes, ">u4").tolist())
            if math.prod(shape) > MOST_NUMBERS:
                raise ValueError(f"{path} is damaged: its header says {shape}, more than {MOST_NUMBERS:,} numbers")
            dtype = np.dtype(DTYPES[start[2]])
            expected = dtype.itemsize * math.prod(shape)
            content = file.read(expected + 1)  # limited, because a small gzip file may decompress to gigabytes
            if len(content) != expected:
                got = "more bytes" if len(content) > expected else f"{len(content)} bytes"
                raise ValueError(
                    f"{path} is damaged: expected {expected} bytes after the header for shape {shape}, got {got}"
                )
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return np.frombuffer(content, dtype).reshape(shape)


def read_fashion_mnist(data_dir: str | Path | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training images, training labels, test images and test labels as uint8 arrays.

    Args:
      data_dir: the folder with the four IDX files, or with a subfolder `fashion-mnist` that contains them. None
        searches $NNJAX_DATA_DIR, then the folder of Debian's package dataset-fashion-mnist.

    Raises:
      FileNotFoundError: if a file is missing; the message names the folders and files, and explains how to get them.
      ValueError: if a file is damaged, or if the four files do not match.
    """
    directory = data_dir if data_dir is not None else os.environ.get(DIRECTORY)
    folders = [as_path(directory), as_path(directory) / "fashion-mnist"] if directory else []
    folders += [DEBIAN] if data_dir is None else []
    for folder in folders:
        candidates = [(folder / f"{name}.gz", folder / name) for name in NAMES]
        if all(any(file.is_file() for file in pair) for pair in candidates):
            files = [gz if gz.is_file() else plain for gz, plain in candidates]
            train_x, train_y, test_x, test_y = arrays = [read_idx(file) for file in files]
            for i in (0, 2):
                _check_images(files[i], arrays[i], files[i + 1], arrays[i + 1])
            if train_x.shape[1:] != test_x.shape[1:]:
                raise ValueError(
                    f"{folder}: training images have shape {train_x.shape[1:]}, test images {test_x.shape[1:]}"
                )
            return train_x, train_y, test_x, test_y
    listed = ", ".join(str(folder) for folder in folders)
    raise FileNotFoundError(
        f"Fashion-MNIST was not found in {listed}. It needs {', '.join(NAMES)} (or .gz). On Debian and Ubuntu: "
        "apt-get install dataset-fashion-mnist. Elsewhere download the four files from "
        f"https://github.com/zalandoresearch/fashion-mnist and set ${DIRECTORY} to their folder."
    )


def _check_images(images_file: Path, images: np.ndarray, labels_file: Path, labels: np.ndarray) -> None:
    """Check that the two files contain images and one label for each image."""
    for file, array, axes in ((images_file, images, "(n, rows, columns)"), (labels_file, labels, "(n,)")):
        if array.ndim != len(axes.split()) or array.dtype != np.uint8:
            raise ValueError(f"{file} is {array.shape} {array.dtype}, expected {axes} uint8; are two files swapped?")
    if len(images) != len(labels) or len(labels) == 0:
        raise ValueError(
            f"{images_file} holds {len(images)} images, but {labels_file} holds {len(labels)} labels; each image needs "
            "one; are two files swapped?"
        )
    if labels.max() >= CLASSES:
        row = int(labels.argmax())
        raise ValueError(f"{labels_file}: label {labels[row]} in row {row}; labels must be in 0 … {CLASSES - 1}")
