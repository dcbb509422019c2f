"""A paired comparison of two runs over the same seeds."""

import math
from typing import NamedTuple

import numpy as np
from jax import Array

from nnjax import checks


class Paired(NamedTuple):
    """The mean difference of two runs over seeds, and its confidence interval."""

    difference: float
    low: float
    high: float
    n: int  # number of seeds


def paired(a: Array, b: Array, *, confidence: float = 0.95) -> Paired:
    """Compare the scores of two runs over the same seeds: their mean difference and its t interval.

        d ± t(n - 1) · s / √n,   d and s: mean and standard deviation of a_i - b_i

    Args:
      a: Scores of the first run, of shape (seeds,).
      b: Scores of the second run, of shape (seeds,), with the same keys in the same order, and so the same batches.
      confidence: Probability in (0, 1) that the interval contains the true difference, if the differences are normally
        distributed.

    Returns:
      Python numbers. For a run compared with itself they are exactly 0.

    Raises:
      ValueError: if the shapes differ or are not (seeds,), if there are fewer than 2 seeds, if a score is not finite,
        or if confidence is outside (0, 1).

    >>> uncertainty.paired(np.array([3.0, 2.0, 4.0]), np.array([1.0, 1.0, 1.0]))
    Paired(difference=2.0, low=-0.48..., high=4.48..., n=3)

    Source: Student 1908.
    """
    from scipy.special import stdtrit

    confidence = float(checks.in_range("paired", "confidence", confidence, "(0, 1)"))
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"paired: a and b must be one score per seed, (seeds,), got {first.shape} and {second.shape}")
    n = len(first)
    if n < 2:
        raise ValueError(f"paired: an interval needs at least 2 seeds, got {n}; run more seeds")
    bad = np.flatnonzero(~(np.isfinite(first) & np.isfinite(second)))
    if bad.size:
        raise ValueError(f"paired: scores must be finite, at seed {bad[0]} they are {first[bad[0]]}, {second[bad[0]]}")
    differences = first - second
    mean = float(differences.mean())
    half = float(stdtrit(n - 1, (1 + confidence) / 2) * differences.std(ddof=1) / math.sqrt(n))
    return Paired(mean, mean - half, mean + half, n)
