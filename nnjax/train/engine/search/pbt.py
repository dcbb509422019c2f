"""Replace trials that fall behind with copies of good ones with perturbed settings (population-based training).

All trials of the population reach a rung together. Only the best continue, a fraction `keep` of the population. Each
of the others ends and is replaced by a new trial, which copies the network and the optimizer's state of a good trial,
drawn at random. There are as many good trials as replaced ones, but at most as many as survive. Each number in a
setting is redrawn with probability 1/4, and otherwise multiplied by 0.8 or 1.2; a value from a list is replaced by a
neighbour in the list. No trial is replaced once all trials have begun.

Source: Jaderberg et al. 2017, arXiv:1711.09846.
"""

import math

import numpy as np

from nnjax.train.engine.search.draws import generator
from nnjax.train.engine.search.random import propose
from nnjax.train.engine.search.schedule import FREE, Ledger, Method, Schedule, SearchState
from nnjax.train.space import unit_of, values_at

RESAMPLED = 0.25
FACTORS = (0.8, 1.2)


def survives(schedule: Schedule, ledger: Ledger, trials: np.ndarray, rung: int) -> np.ndarray:
    """Return a mask of the best trials in the population, and of others if no new trial is left to replace them."""
    order = np.argsort(ledger.scores[trials, rung], kind="stable")
    ended = schedule.slots - len(trials)  # trials that diverged or stopped improving, which are always replaced
    worst = len(trials) - survivor_count(len(trials), schedule.keep)
    replaceable = min(worst, schedule.trials - ledger.started - ended)
    survives = np.ones(len(trials), bool)
    survives[order[len(trials) - max(0, replaceable) :]] = False
    return survives


def donors(schedule: Schedule, state: SearchState, ending: np.ndarray) -> np.ndarray:
    """Draw the slot of a good trial for each slot whose trial ends, or return -1 if no trial continues."""
    donors, ledger = np.full(schedule.slots, -1), state.ledger
    alive = np.flatnonzero((state.trial != FREE) & ~ending)
    if not alive.size:
        return donors
    score = ledger.scores[state.trial[alive], ledger.rung[state.trial[alive]] - 1]
    alive = alive[np.argsort(score, kind="stable")]
    best = alive[: max(1, min(len(alive), int(ending.sum())))]
    for i, slot in enumerate(np.flatnonzero(ending)):
        rng = generator(schedule.key, ledger.started + i)
        donors[slot] = best[rng.integers(len(best))]
    return donors


def perturb(schedule: Schedule, ledger: Ledger, trial: int, parent: int) -> np.ndarray:
    """Return the parent's settings with random perturbations, as a point in the unit cube."""
    rng = generator(schedule.key, trial)
    rng.random()  # skip the number that drew the donor
    units = np.empty(len(schedule.dimensions))
    for j, dimension in enumerate(schedule.dimensions):
        resampled, up, anew = rng.random() < RESAMPLED, int(rng.integers(2)), rng.random()
        unit = ledger.units[parent, j]
        if resampled:
            units[j] = anew
        elif dimension.size is None:
            value = FACTORS[up] * float(values_at(dimension, np.array([unit]))[0])
            units[j] = unit_of(dimension, value)
        else:
            index = min(int(unit * dimension.size), dimension.size - 1) + (2 * up - 1)
            units[j] = (min(max(index, 0), dimension.size - 1) + 0.5) / dimension.size
    return units


def survivor_count(n: int, keep: float) -> int:
    """Return the number of trials, out of `n`, that are not replaced."""
    return max(1, math.floor(keep * n + 1e-9))


METHOD = Method("pbt", propose, survives, donors, perturb)
