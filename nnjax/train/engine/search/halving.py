"""Continue a trial if it is among the best that have reached the rung so far (asynchronous successive halving).

No trial waits for the others. All trials that reach a rung in the same round are also compared with each other. If the
population contains all trials, this is therefore successive halving. With keep = 1/2, it is median stopping: a trial
continues if its score is below the median at its rung.

Source: Jamieson and Talwalkar 2016, arXiv:1502.07943; Li et al. 2020, arXiv:1810.05934, in the variant that stops
trials instead of pausing them.
"""

import math

import numpy as np

from nnjax.train.engine.search.random import propose
from nnjax.train.engine.search.schedule import Ledger, Method, Schedule


def survives(schedule: Schedule, ledger: Ledger, trials: np.ndarray, rung: int) -> np.ndarray:
    """Return a mask of the trials among the best max(1, ⌊keep · n⌋) of the n that have reached the rung so far."""
    return among_best(ledger.scores[:, rung], trials, schedule.keep)


def among_best(scores: np.ndarray, trials: np.ndarray, keep: float) -> np.ndarray:
    """Return a mask of the trials among the best max(1, ⌊keep · n⌋) of n scores. Of equal scores, the first is better.

    Args:
      scores: (trials,) scores of all trials; NaN for trials without a score, and infinite for diverged trials, which
        count.
      trials: the trials to check, which must have finite scores.
      keep: share of the scores, in (0, 1].

    >>> from nnjax.train.engine.search.halving import among_best
    >>> scores = np.array([0.3, 0.1, np.nan, 0.1, 0.2, np.inf, 0.5])
    >>> among_best(scores, np.array([0, 1, 3, 4, 6]), keep=0.5).tolist()  # three of six
    [False, True, True, True, False]
    """
    reached = np.flatnonzero(~np.isnan(scores))
    count = max(1, math.floor(keep * len(reached) + 1e-9))
    best = reached[np.argsort(scores[reached], kind="stable")][:count]
    return np.isin(trials, best)


METHOD = Method("halving", propose, survives)
