"""Build a grid in the plane of two features, on which a network is evaluated."""

from typing import NamedTuple

import numpy as np

MOST_ROWS = 2000  # maximum number of rows of the data set that are drawn


class Plane(NamedTuple):
    """A grid of points that covers the rows of a table with two features."""

    grid: np.ndarray  # (size², 2), row by row from the lowest value of the second feature
    across: np.ndarray  # (size,) values of the first feature
    up: np.ndarray  # (size,) values of the second feature
    extent: tuple[float, float, float, float]  # left, right, bottom, top


def plane_around(where: str, x: np.ndarray, size: int) -> Plane:
    """Return a grid that covers all rows of x (rows, 2) and a margin, with `size` points along each axis.

    Raises:
      ValueError: if x does not have two features.
    """
    if x.ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"{where}: x must be (rows, 2), got {x.shape}")
    low, high = x.min(0), x.max(0)
    margin = 0.06 * np.where(high > low, high - low, 1)
    low, high = low - margin, high + margin
    across, up = (np.linspace(low[i], high[i], size) for i in (0, 1))
    grid = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    return Plane(grid, across, up, (low[0], high[0], low[1], high[1]))
