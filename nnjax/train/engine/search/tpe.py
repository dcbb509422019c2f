"""Propose settings that are more likely among good trials than among others (tree-structured Parzen estimator).

Trials are ordered by the last rung that they reached, and then by their score at this rung. The first 15 %, but at
least d + 1, are good. l and g are densities on the unit cube around the settings of the good and of the other trials.
Of 24 draws from l, the one with the largest l / g is proposed. Trials are stopped as in asynchronous halving.

    l(x) = 1 / (n + 1) (1 + Σ_i Π_j N(x_j; x_ij, h) / Z_ij),   h = 0.2 · n^(-1 / (d + 4)),   g likewise

Source: Bergstra et al. 2011; the multivariate kernels are those of Falkner et al. 2018, arXiv:1807.01774.
"""

import math

import numpy as np

from nnjax.train.engine.search.draws import generator
from nnjax.train.engine.search.halving import survives
from nnjax.train.engine.search.schedule import Ledger, Method, Schedule
from nnjax.train.space import Dimension

START = 10  # until at least this many trials have a score, settings are drawn uniformly
GOOD = 0.15  # share of the trials that count as good
CANDIDATES = 24
BANDWIDTH, NARROWEST = 0.2, 0.01


def propose(schedule: Schedule, ledger: Ledger, trial: int) -> np.ndarray:
    """Return the candidate with the largest density ratio l / g, or a random point if too few trials have a score."""
    rng, dimensions = generator(schedule.key, trial), schedule.dimensions
    uniform = rng.random(len(dimensions))
    order, finite = _ordered(ledger)
    if finite < max(START, 2 * (len(dimensions) + 1)):
        return uniform
    points = _snapped(dimensions, ledger.units[order])
    n_good = max(len(dimensions) + 1, math.ceil(GOOD * len(order)))
    good, other = points[:n_good], points[n_good:]
    candidates = _snapped(dimensions, _draw(rng, good, CANDIDATES))
    return candidates[np.argmax(log_density(candidates, good) - log_density(candidates, other))]


def _ordered(ledger: Ledger) -> tuple[np.ndarray, int]:
    """Return the trials that have a score or diverged, best first, and the number of those with a score."""
    finite = np.isfinite(ledger.scores)
    reached = np.where(finite.any(1), finite.shape[1] - np.argmax(finite[:, ::-1], 1), 0)
    last = ledger.scores[np.arange(len(reached)), np.maximum(reached - 1, 0)]
    out = np.isinf(ledger.scores).any(1)
    known = np.flatnonzero((reached > 0) | out)
    return known[np.lexsort((last[known], -reached[known], out[known]))], int(((reached > 0) & ~out).sum())


def log_density(x: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the log density, at `x` (m, d), of a mixture of kernels around `points` (n, d) and a uniform density."""
    h = _bandwidth(points)
    z = (x[:, None] - points) / h
    log_kernels = (-0.5 * z**2 - math.log(h * math.sqrt(2 * math.pi)) - np.log(_mass(points, h))).sum(-1)
    return np.log((1 + np.exp(log_kernels).sum(1)) / (1 + len(points)))


def _draw(rng: np.random.Generator, points: np.ndarray, n: int) -> np.ndarray:
    """Draw `n` points from the density around `points`."""
    from scipy.special import ndtr, ndtri

    h = _bandwidth(points)
    kernel, u = rng.integers(len(points) + 1, size=n), rng.random((n, points.shape[1]))
    centre = points[np.minimum(kernel, len(points) - 1)]
    drawn = centre + h * ndtri(ndtr(-centre / h) + u * _mass(centre, h))
    return np.where(kernel[:, None] == len(points), u, np.clip(drawn, 0.0, 1.0))


def _bandwidth(points: np.ndarray) -> float:
    n, d = points.shape
    return max(NARROWEST, BANDWIDTH * max(1, n) ** (-1 / (d + 4)))


def _mass(centre: np.ndarray, h: float) -> np.ndarray:
    """Return the probability mass of each kernel inside the unit interval."""
    from scipy.special import ndtr

    return ndtr((1 - centre) / h) - ndtr(-centre / h)


def _snapped(dimensions: tuple[Dimension, ...], units: np.ndarray) -> np.ndarray:
    """Move each value of a list to the middle of its interval, so that equal settings become equal points."""
    snapped = units.copy()
    for j, size in enumerate(dimension.size for dimension in dimensions):
        if size is not None:
            snapped[:, j] = (np.minimum(np.floor(units[:, j] * size), size - 1) + 0.5) / size
    return snapped


METHOD = Method("tpe", propose, survives)
