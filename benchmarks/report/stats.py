"""Times of something that was measured again and again: their middle, their spread, and ratios of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SLOWER = 1.05  # a smaller ratio is not worth a word, however certain it is
CERTAIN = 0.01  # probability that times as different as these are of one program
ENOUGH = 5  # samples on either side; with fewer none are so different


class Summary(NamedTuple):
    """Of samples, in their unit."""

    median: float
    low: float  # the first quartile
    high: float  # the third
    least: float


class Ratio(NamedTuple):
    """How many times as long something takes as something else."""

    value: float
    low: float  # of 95 %
    high: float

    @property
    def spread(self) -> float:
        """How far from 1 the interval reaches, as a ratio above 1: of a program against itself, the noise."""
        return max(self.high, 1 / self.low)


def summary(samples: Sequence[float]) -> Summary:
    """The median, the quartiles and the least of samples.

    Raises:
      ValueError: where there are none, or one is no time.
    """
    times = _checked(samples)
    low, median, high = np.quantile(times, (0.25, 0.5, 0.75))
    return Summary(float(median), float(low), float(high), float(times.min()))


def ratio(one: Sequence[float], other: Sequence[float], *, seed: int = 0) -> Ratio:
    """Median over median, with the interval of a bootstrap; samples of one round are drawn together.

    Args:
      one: (rounds,)
      other: (rounds,), measured in turns with the first.
      seed: of the bootstrap.

    Raises:
      ValueError: where they are not as many.
    """
    from scipy.stats import bootstrap

    a, b = _checked(one), _checked(other)
    if a.shape != b.shape:
        raise ValueError(f"ratio: {a.size} rounds and {b.size}; measure both in the same rounds")
    value = float(np.median(a) / np.median(b))
    if a.size == 1:
        return Ratio(value, value, value)
    found = bootstrap(
        (a, b),
        lambda x, y, axis: np.median(x, axis=axis) / np.median(y, axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=2000,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Ratio(value, float(found.low), float(found.high))


def geometric_mean(ratios: Sequence[float]) -> float:
    """The mean of ratios: 2 and 1/2 make 1."""
    return float(np.exp(np.log(_checked(ratios)).mean()))


def is_slower(old: Sequence[float], new: Sequence[float], noise: float) -> bool:
    """Whether the new times are longer: certainly, by more than 5 %, and by more than a program differs from itself.

    Args:
      old: (samples,)
      new: (samples,), not of the same rounds.
      noise: the `Ratio.spread` of a program against itself, 1 or more.
    """
    from scipy.stats import mannwhitneyu

    a, b = _checked(old), _checked(new)
    by = float(np.median(b) / np.median(a))
    return by > max(SLOWER, noise) and float(mannwhitneyu(b, a, alternative="greater").pvalue) < CERTAIN


def _checked(samples: Sequence[float]) -> np.ndarray:
    times = np.asarray(samples, np.float64)
    if times.ndim != 1 or not times.size or not (np.isfinite(times) & (times > 0)).all():
        raise ValueError(f"samples must be times above 0, one or more, got {samples!r}")
    return times
