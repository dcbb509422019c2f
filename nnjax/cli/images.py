"""Recognise rows that are images, and restore their pixels."""

import math
import zipfile
from pathlib import Path

import numpy as np

from nnjax.cli.config import Config
from nnjax.data._load import NAMES
from nnjax.data._npz import read_shape
from nnjax.data.table import Table

LEAST_SIDE = 4  # pixels; smaller arrays are not images
AXES = (2, 3)  # possible numbers of axes: (height, width) or (height, width, channels)


def image_shape(config: Config, table: Table) -> tuple[int, ...] | None:
    """Return the shape of each image, (height, width) or (height, width, 3), or None if the rows are not images."""
    features = len(table.columns)
    if config.data in NAMES:
        side = math.isqrt(features)
        return side, side
    path = Path(config.data)
    if path.suffix.lower() != ".npz":
        return None
    try:
        shape = read_shape(path)[1:]
    except (OSError, ValueError, zipfile.BadZipFile):  # the file may have been removed since training
        return None
    if len(shape) not in AXES or math.prod(shape) != features or min(shape[:2]) < LEAST_SIDE:
        return None
    if len(shape) == max(AXES) and shape[2] not in (1, 3):
        return None
    return shape[:2] if shape[2:] == (1,) else shape


def pixels(x: np.ndarray, shape: tuple[int, ...], config: Config, table: Table) -> np.ndarray:
    """Undo the standardisation and return images (rows, height, width, ...). Colour images are scaled to [0, 1]."""
    if config.data not in NAMES:  # features of named data sets are not standardised
        x = x * np.array(table.std) + np.array(table.mean)
    images = x.reshape(len(x), *shape)
    if len(shape) == max(AXES):
        images = (images - images.min()) / max(float(np.ptp(images)), 1e-12)
    return images
