"""Searches without training: the schedule is driven by scores that a function computes."""

import numpy as np

from nnjax.train.engine.search.methods import METHODS
from nnjax.train.engine.search.schedule import FREE, Schedule, first_state, is_due, next_state, round_end
from nnjax.train.space import uniform


def make_schedule(
    method="halving", *, trials, slots, ends=(1, 3, 9), keep=1 / 3, dimensions=1, score="loss", seed=0, patience=None
):
    return Schedule(
        (uniform(0, 1),) * dimensions,
        trials,
        min(slots, trials),
        np.array([ends]),
        keep,
        score,
        (0, seed),
        METHODS[method],
        patience,
    )


def simulate(schedule, score, diverge=lambda trial: None):
    """Run a schedule to its end; return the final ledger and the rounds.

    Args:
      schedule: the schedule, of one replicate.
      score: `(trial, units, step) -> number`.
      diverge: `trial -> step` at which its loss is NaN, or None.

    Returns:
      The ledger, and for each round a dictionary: the trials in the slots, the steps taken, and the moves after it.
    """
    state, _ = first_state(schedule)
    rounds = []
    while (state.trial != FREE).any():
        until = round_end(schedule, state)
        due, ledger = is_due(schedule, state, until), state.ledger
        scores, diverged = np.zeros((schedule.slots, 1)), np.full((schedule.slots, 1), -1)
        for slot, trial in enumerate(state.trial.tolist()):
            if trial != FREE and due[slot]:
                scores[slot] = score(trial, ledger.units[trial], int(until[slot, 0]))
            if trial != FREE and (bad := diverge(trial)) is not None and bad < until[slot, 0]:
                diverged[slot] = bad
        taken = (until - state.done)[:, 0].tolist()
        following, moves = next_state(schedule, state, until, {"loss": scores}, diverged)
        rounds.append({"trials": state.trial.tolist(), "taken": taken, "moves": moves, "after": following})
        state = following
        assert len(rounds) < 10_000
    return state.ledger, rounds


def by_rung(scores):
    """Return a score from a list for each trial, with one score for each step."""
    return lambda trial, units, step: scores[trial][step - 1]


def by_trial(scores):
    """Return a score that depends on the number of the trial alone."""
    return lambda trial, units, step: scores[trial]
