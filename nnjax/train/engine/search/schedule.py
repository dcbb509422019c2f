"""Decide, by pure functions of the scores, which trials of a search continue, end and begin.

Nothing here trains a network or depends on time. A search begins with `first_state`. Each slot has room for one running
trial. In a round, the members train until `round_end`, and `next_state` decides from the scores at the rungs that were
reached. The search ends when all slots are empty.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nnjax.train.engine.search.draws import generator
from nnjax.train.space import Dimension

WAITING, RUNNING, STOPPED, FINISHED, DIVERGED = range(5)  # the status of a trial
STATUS = ("waiting", "running", "stopped", "finished", "diverged")
FREE = -1  # marks an empty slot


class Ledger(NamedTuple):
    """All trials, in the order in which they began. Scores are lower for better trials."""

    units: np.ndarray  # (trials, dimensions) the setting, as a point of the unit cube; NaN before the trial began
    scores: np.ndarray  # (trials, rungs) NaN for rungs not reached; infinity for the rung before which a trial diverged
    logs: dict[str, np.ndarray]  # (trials, rungs, replicates) the scalars of each evaluation
    rung: np.ndarray  # (trials,) number of rungs that the trial has reached, which is the index of its next rung
    status: np.ndarray  # (trials,) WAITING … DIVERGED
    parent: np.ndarray  # (trials,) the trial whose network was copied; -1 if the network was newly initialised
    diverged: np.ndarray  # (trials, replicates) the step with a loss that was not finite, or -1

    @property
    def started(self) -> int:
        """Return the number of trials that have begun."""
        return int((self.status != WAITING).sum())


class SearchState(NamedTuple):
    """The state of the schedule, which each decision updates. It does not contain the networks."""

    ledger: Ledger
    trial: np.ndarray  # (slots,) the trial in each slot, or FREE
    done: np.ndarray  # (slots, replicates) steps taken when the round began


class Moves(NamedTuple):
    """The moves of networks between the slots after a decision."""

    source: np.ndarray  # (slots,) the slot from which each slot takes its networks: itself, or a donor
    fresh: np.ndarray  # (slots,) bool, True for slots whose trial begins with newly initialised networks


class Schedule(NamedTuple):
    """The settings of a search that determine its schedule, given the scores."""

    dimensions: tuple[Dimension, ...]
    trials: int
    slots: int
    ends: np.ndarray  # (replicates, rungs) the step at which each replicate of a trial reaches each rung
    keep: float  # share of the trials that continue at a rung
    score: str  # name of the score in the logs, with a leading minus if larger is better
    key: tuple[int, ...]  # random key for all draws, as integers
    method: "Method"
    patience: int | None = None  # number of rungs without improvement after which a trial is stopped; None for no limit

    @property
    def rungs(self) -> int:
        """Return the number of rungs."""
        return self.ends.shape[1]


class Method(NamedTuple):
    """A search method, as pure functions."""

    name: str
    propose: Callable[[Schedule, Ledger, int], np.ndarray]  # (…, trial) -> (dimensions,) a point of the unit cube
    survives: Callable[[Schedule, Ledger, np.ndarray, int], np.ndarray]  # (…, trials (n,), rung) -> (n,) bool
    # (schedule, state, ending (slots,) bool) -> (slots,) for each slot whose trial ends, the slot that the next trial
    # copies, or -1; None if all trials begin with newly initialised networks
    donors: Callable[[Schedule, SearchState, np.ndarray], np.ndarray] | None = None
    # (…, trial, parent) -> (dimensions,) the parent's settings with random perturbations, as a point of the unit cube
    perturb: Callable[[Schedule, Ledger, int, int], np.ndarray] | None = None


def empty_ledger(schedule: Schedule) -> Ledger:
    """Return a ledger in which no trial has begun."""
    trials, replicates = schedule.trials, len(schedule.ends)
    return Ledger(
        units=np.full((trials, len(schedule.dimensions)), np.nan),
        scores=np.full((trials, schedule.rungs), np.nan),
        logs={},
        rung=np.zeros(trials, np.int64),
        status=np.full(trials, WAITING, np.int64),
        parent=np.full(trials, -1, np.int64),
        diverged=np.full((trials, replicates), -1, np.int64),
    )


def first_state(schedule: Schedule, ledger: Ledger | None = None) -> tuple[SearchState, Moves]:
    """Begin the first trials, and return the state and the moves of the networks.

    Args:
      schedule: the schedule.
      ledger: the trials from earlier rounds of the same group, which are kept; None in the first round.
    """
    empty = empty_ledger(schedule)
    ledger = empty if ledger is None else _with_room(ledger, empty)
    free = SearchState(ledger, np.full(schedule.slots, FREE), np.zeros((schedule.slots, len(schedule.ends)), np.int64))
    return _begin(schedule, free, np.ones(schedule.slots, bool), None)


def _with_room(ledger: Ledger, empty: Ledger) -> Ledger:
    """Extend a ledger to the number of trials in an empty ledger."""
    begun = len(ledger.status)
    logs = {
        name: np.pad(a, ((0, len(empty.status) - begun), (0, 0), (0, 0)), constant_values=np.nan)
        for name, a in ledger.logs.items()
    }
    fields = {
        name: np.concatenate([getattr(ledger, name), getattr(empty, name)[begun:]])
        for name in Ledger._fields
        if name != "logs"
    }
    return Ledger(logs=logs, **fields)


def round_end(schedule: Schedule, state: SearchState) -> np.ndarray:
    """Return the steps (slots, replicates) at which the round ends, when the first slot reaches its rung.

    All slots take the same number of steps, so no slot waits for the others.
    """
    occupied = state.trial != FREE
    left = np.where(occupied[:, None], _targets(schedule, state) - state.done, 0)
    steps = left.max(1)[occupied].min(initial=np.iinfo(np.int64).max)
    return state.done + np.minimum(left, steps)


def is_due(schedule: Schedule, state: SearchState, until: np.ndarray) -> np.ndarray:
    """Return a mask (slots,) of the slots whose trial reaches its next rung at the end of the round."""
    return (state.trial != FREE) & (until == _targets(schedule, state)).all(1)


def next_state(
    schedule: Schedule, state: SearchState, until: np.ndarray, logs: dict[str, np.ndarray], diverged: np.ndarray
) -> tuple[SearchState, Moves]:
    """Return the state after the decision at the end of a round, and the moves of the networks.

    Args:
      schedule: the schedule.
      state: the state when the round began.
      until: (slots, replicates) the end of the round.
      logs: the scalars (slots, replicates) of the evaluation; entries of slots that are not due are ignored.
      diverged: (slots, replicates) the step with a loss that was not finite, or -1.
    """
    due = is_due(schedule, state, until)
    ledger = _record(schedule, state, until, logs, diverged)
    state = SearchState(ledger, state.trial, until)
    bad = (state.trial != FREE) & (ledger.status[state.trial] == DIVERGED)
    ending = bad.copy()
    status, judged = ledger.status.copy(), due & ~bad
    for rung in np.unique(ledger.rung[state.trial[judged]]):  # the number of rungs reached
        slots = np.flatnonzero(judged & (ledger.rung[state.trial] == rung))
        trials = state.trial[slots]
        if rung == schedule.rungs:
            survives, status[trials] = np.zeros(len(trials), bool), FINISHED
        else:
            survives = ~is_stalled(schedule, ledger, trials, int(rung) - 1)
            survives[survives] = schedule.method.survives(schedule, ledger, trials[survives], int(rung) - 1)
            status[trials[~survives]] = STOPPED
        ending[slots[~survives]] = True
    judging = state._replace(ledger=ledger._replace(status=status))
    donors = None if schedule.method.donors is None else schedule.method.donors(schedule, judging, ending)
    return _begin(schedule, judging, ending, donors)


def is_stalled(schedule: Schedule, ledger: Ledger, trials: np.ndarray, rung: int) -> np.ndarray:
    """Return a mask of the trials whose lowest score was at least `patience` rungs before this one, as in `fit`."""
    if schedule.patience is None:
        return np.zeros(len(trials), bool)
    scores = ledger.scores[trials, : rung + 1]
    return rung - np.where(np.isnan(scores), np.inf, scores).argmin(1) >= schedule.patience


def _targets(schedule: Schedule, state: SearchState) -> np.ndarray:
    """Return the step (slots, replicates) at which each slot reaches its next rung; undefined for empty slots."""
    rung = np.where(state.trial == FREE, 0, state.ledger.rung[state.trial])
    return schedule.ends.T[np.minimum(rung, schedule.rungs - 1)]


def _record(
    schedule: Schedule, state: SearchState, until: np.ndarray, logs: dict[str, np.ndarray], diverged: np.ndarray
) -> Ledger:
    """Return the ledger with the scores of the slots that are due, and with the trials that diverged.

    Before its rung, a trial ends only if it diverged at a step that all its folds have taken. Its first diverged step
    then determines the round, so `decide` finds the same round from the table.
    """
    ledger, due = state.ledger, is_due(schedule, state, until)
    scores, rungs, status, steps = (a.copy() for a in (ledger.scores, ledger.rung, ledger.status, ledger.diverged))
    shape = (schedule.trials, schedule.rungs, len(schedule.ends))
    recorded = {name: ledger.logs.get(name, np.full(shape, np.nan)).copy() for name in {**ledger.logs, **logs}}
    sign = -1.0 if schedule.score.startswith("-") else 1.0
    for slot in np.flatnonzero(state.trial != FREE):
        trial, rung = state.trial[slot], rungs[state.trial[slot]]
        steps[trial] = diverged[slot]
        lost = diverged[slot] >= 0
        if not due[slot] and not (lost & (diverged[slot] < until[slot].min())).any():
            continue
        score = np.inf
        if due[slot] and not lost.any():
            for name, values in logs.items():
                recorded[name][trial, rung] = values[slot]
            score = sign * float(np.mean(logs[schedule.score.removeprefix("-")][slot]))
        scores[trial, rung] = score if np.isfinite(score) else np.inf
        rungs[trial] = rung + 1 if np.isfinite(score) else rung
        status[trial] = RUNNING if np.isfinite(score) else DIVERGED
    return ledger._replace(scores=scores, logs=recorded, rung=rungs, status=status, diverged=steps)


def _begin(
    schedule: Schedule, state: SearchState, ending: np.ndarray, donors: np.ndarray | None
) -> tuple[SearchState, Moves]:
    """Begin the next trials in the slots whose trials end, in the order of the slots."""
    ledger, done, trial = state.ledger, state.done.copy(), state.trial.copy()
    units, rung, status, parent = (a.copy() for a in (ledger.units, ledger.rung, ledger.status, ledger.parent))
    source, fresh = np.arange(schedule.slots), np.zeros(schedule.slots, bool)
    method, begun = schedule.method, ledger.started
    for slot in np.flatnonzero(ending):
        trial[slot], done[slot] = FREE, 0
        if begun == schedule.trials:
            continue
        donor = -1 if donors is None else int(donors[slot])
        if donor >= 0 and method.perturb is not None:
            source[slot], parent[begun] = donor, state.trial[donor]
            units[begun] = method.perturb(schedule, ledger, begun, int(state.trial[donor]))
            done[slot], rung[begun] = state.done[donor], ledger.rung[state.trial[donor]]
        else:
            fresh[slot], units[begun] = True, method.propose(schedule, ledger, begun)
        trial[slot], status[begun] = begun, RUNNING
        begun += 1
    ledger = ledger._replace(units=units, rung=rung, status=status, parent=parent)
    return SearchState(ledger, trial, done), Moves(source, fresh)


def random_units(schedule: Schedule, trial: int) -> np.ndarray:
    """Return a uniformly random point in the unit cube, which depends only on the key and the number of the trial."""
    return generator(schedule.key, trial).random(len(schedule.dimensions))
