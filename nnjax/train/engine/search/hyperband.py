"""Distribute trials over brackets that begin to stop trials at different rungs (Hyperband).

A trial in bracket b is compared first at rung b, and only with trials in its bracket. There are B brackets, as many as
rungs. In a cycle, bracket b gets ⌈B / (B - b) · keep^(b + 1 - B)⌉ trials: 27, 12, 6 and 4 for B = 4, keep = 1/3.

Source: Li et al. 2018, arXiv:1603.06560.
"""

import math

import numpy as np

from nnjax.train.engine.search.halving import among_best
from nnjax.train.engine.search.random import propose
from nnjax.train.engine.search.schedule import Ledger, Method, Schedule


def survives(schedule: Schedule, ledger: Ledger, trials: np.ndarray, rung: int) -> np.ndarray:
    """Return a mask of the trials that continue.

    All trials of brackets that are not compared at this rung continue, and the best trials of each other bracket.
    """
    brackets = brackets_of(np.arange(schedule.trials), schedule.rungs, schedule.keep)
    continues = brackets[trials] > rung
    for bracket in range(rung + 1):
        own = brackets[trials] == bracket
        scores = np.where(brackets == bracket, ledger.scores[:, rung], np.nan)
        continues[own] = among_best(scores, trials[own], schedule.keep)
    return continues


def bracket_sizes(rungs: int, keep: float) -> list[int]:
    """Return the number of trials in each bracket per cycle.

    >>> from nnjax.train.engine.search.hyperband import bracket_sizes
    >>> bracket_sizes(4, 1 / 3)
    [27, 12, 6, 4]
    """
    return [math.ceil(rungs / (rungs - b) * keep ** (b + 1 - rungs) - 1e-9) for b in range(rungs)]


def brackets_of(trials: np.ndarray, rungs: int, keep: float) -> np.ndarray:
    """Return the bracket of each trial. The trials of a bracket are spread evenly over a cycle."""
    sizes = bracket_sizes(rungs, keep)
    places = [((i + 0.5) / size, bracket) for bracket, size in enumerate(sizes) for i in range(size)]
    cycle = np.array([bracket for _, bracket in sorted(places)])
    return cycle[trials % len(cycle)]


METHOD = Method("hyperband", propose, survives)
