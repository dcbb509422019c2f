"""Hyperband: trials are distributed over brackets, which begin to stop trials at different rungs.

A trial of bracket b is compared first at rung b, and only with trials of its bracket. There are as many brackets as
rungs, B. In a cycle, bracket b gets ⌈B / (B - b) · keep^(b + 1 - B)⌉ trials: 27, 12, 6 and 4 for B = 4, keep = 1/3.

Source: Li et al. 2018, arXiv:1603.06560.
"""

import math

import numpy as np

from nnjax.train.engine.search.halving import among_best
from nnjax.train.engine.search.random import propose
from nnjax.train.engine.search.schedule import Ledger, Method, Schedule


def survives(schedule: Schedule, ledger: Ledger, trials: np.ndarray, rung: int) -> np.ndarray:
    """Return True for trials whose bracket is compared only later, and for the best of each other bracket."""
    brackets = brackets_of(np.arange(schedule.trials), schedule.rungs, schedule.keep)
    continues = brackets[trials] > rung
    for bracket in range(rung + 1):
        own = brackets[trials] == bracket
        scores = np.where(brackets == bracket, ledger.scores[:, rung], np.nan)
        continues[own] = among_best(scores, trials[own], schedule.keep)
    return continues


def bracket_sizes(rungs: int, keep: float) -> list[int]:
    """Return the number of trials of each bracket in a cycle.

    >>> from nnjax.train.engine.search.hyperband import bracket_sizes
    >>> bracket_sizes(4, 1 / 3)
    [27, 12, 6, 4]
    """
    return [math.ceil(rungs / (rungs - b) * keep ** (b + 1 - rungs) - 1e-9) for b in range(rungs)]


def brackets_of(trials: np.ndarray, rungs: int, keep: float) -> np.ndarray:
    """Return the bracket of each trial. In a cycle, the trials of a bracket are spread evenly."""
    sizes = bracket_sizes(rungs, keep)
    places = [((i + 0.5) / size, bracket) for bracket, size in enumerate(sizes) for i in range(size)]
    cycle = np.array([bracket for _, bracket in sorted(places)])
    return cycle[trials % len(cycle)]


METHOD = Method("hyperband", propose, survives)
