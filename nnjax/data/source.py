"""Examples that are read from where they lie, for data that outgrow memory."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nnjax.types import Data


class Source(NamedTuple):
    """Random access to examples: a run gathers its batches from it, ahead of the steps that need them."""

    n: int
    gather: Callable[[np.ndarray], Data]  # rows (m,) -> the examples, NumPy arrays, float32 and int32
    bytes_per_row: int
    digest: str  # of what the examples are, to tell another source from this one
