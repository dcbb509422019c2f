"""Compute statistics of repeated timings: quartiles, ratios with intervals, and a test for slowdowns."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SLOWER = 1.05  # smaller ratios are never reported as slower, even if significant
SIGNIFICANCE = 0.01  # p-value below which a difference is significant
ENOUGH = 5  # minimum number of samples in each run; if both have fewer, no difference is significant


class Summary(NamedTuple):
    """Summary of samples, in the unit of the samples."""

    median: float
    low: float  # first quartile
    high: float  # third quartile
    minimum: float


class Ratio(NamedTuple):
    """Ratio of two medians, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """Return the largest deviation of the interval from 1, as a factor of at least 1."""
        return max(self.high, 1 / self.low)


def summarise(samples: Sequence[float]) -> Summary:
    """Return the median, the quartiles and the minimum.

    Raises:
      ValueError: if there are no samples, or if one is not a positive number.
    """
    times = _checked(samples)
    low, median, high = np.quantile(times, (0.25, 0.5, 0.75))
    return Summary(float(median), float(low), float(high), float(times.min()))


def median_ratio(numerator: Sequence[float], denominator: Sequence[float], *, seed: int = 0) -> Ratio:
    """Return the ratio of two medians, with a bootstrap interval that resamples rounds in pairs.

    Args:
      numerator: samples, (rounds,).
      denominator: samples from the same rounds, (rounds,).
      seed: random seed of the bootstrap.

    Raises:
      ValueError: if the numbers of rounds differ, or as in `summarise`.
    """
    from scipy.stats import bootstrap

    a, b = _checked(numerator), _checked(denominator)
    if a.shape != b.shape:
        raise ValueError(f"median_ratio: got {a.size} and {b.size} rounds; measure both in the same rounds")
    value = float(np.median(a) / np.median(b))
    if a.size == 1:
        return Ratio(value, value, value)
    interval = bootstrap(
        (a, b),
        lambda x, y, axis: np.median(x, axis=axis) / np.median(y, axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=2000,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Ratio(value, float(interval.low), float(interval.high))


def geometric_mean(ratios: Sequence[float]) -> float:
    """Return the geometric mean, in which 2 and 1/2 average to 1."""
    return float(np.exp(np.log(_checked(ratios)).mean()))


def is_slower(old: Sequence[float], new: Sequence[float], noise: float) -> bool:
    """Return True if the new times are significantly longer, by more than 5 % and by more than the noise.

    Args:
      old: samples, (n,).
      new: samples of the later run, (m,).
      noise: factor of at least 1 by which unchanged programs differ.
    """
    from scipy.stats import mannwhitneyu

    a, b = _checked(old), _checked(new)
    factor = float(np.median(b) / np.median(a))
    return factor > max(SLOWER, noise) and float(mannwhitneyu(b, a, alternative="greater").pvalue) < SIGNIFICANCE


def _checked(samples: Sequence[float]) -> np.ndarray:
    times = np.asarray(samples, np.float64)
    if times.ndim != 1 or not times.size or not (np.isfinite(times) & (times > 0)).all():
        raise ValueError(f"samples must be one or more positive times, got {samples!r}")
    return times
