"""Collect the results of a search: the table of all trials, the best networks, and statistics of the scores."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from nnjax.train.compare import PairedDifference, paired_difference
from nnjax.train.engine.ensemble import index_tree
from nnjax.train.engine.options import Record
from nnjax.train.engine.search.loop import best_rungs, best_scores, ranking
from nnjax.train.engine.search.saving import Position
from nnjax.train.engine.search.schedule import RUNNING, STATUS, WAITING, Ledger, Schedule
from nnjax.train.space import values_at
from nnjax.types import Params, State, Trainable

COLUMNS = ("trial", "status", "epochs", "score", "parent", "diverged")  # columns of the table, not allowed as settings
SCORE = "score_"  # prefix of the columns with the scores at the rungs, such as score_3 after 3 epochs
Table = list[Record]


class TrialNetwork(NamedTuple):
    """A trial with its trained network."""

    trial: int  # number of the trial
    settings: dict[str, Any]
    score: float  # the trial's lowest score at any rung
    epochs: float  # number of epochs that the network was trained, up to the rung with the trial's lowest score
    run: Trainable  # the run with these settings
    params: Params  # with a leading axis (replicates, ...) for several seeds or folds, as in `state`
    state: State
    replicates: int | None = None  # number of seeds or folds; None if each trial is one run

    def __repr__(self) -> str:
        """Return a summary without the network."""
        several = "" if self.replicates is None else f", replicates={self.replicates}"
        return (
            f"TrialNetwork(trial={self.trial}, settings={self.settings}, score={self.score:.4g}, "
            f"epochs={self.epochs:g}{several})"
        )


class Group(NamedTuple):
    """The trials with the same structure."""

    make_run: Callable[[dict[str, Any]], Trainable]  # builds a run from the traced numbers
    fixed: tuple[tuple[str, Any], ...]  # settings that are the same for all trials of the group
    names: tuple[str, ...]  # names of the dimensions
    epochs: tuple[float, ...]  # number of epochs at each rung
    schedule: Schedule
    ledger: Ledger
    numbers: np.ndarray  # (trials,) the number of each trial in the whole search
    position: Position | None = None  # final state, with the best networks; None while the group is trained


class Place(NamedTuple):
    """The rank of a trial, as a sort key: the best trial has the smallest key."""

    score: float  # infinite for a trial that is not ranked
    number: int


def places(group: Group) -> list[tuple[Place, int]]:
    """Return the rank and the index in the ledger of each ranked trial of a group, best first."""
    scores = best_scores(group.ledger)
    return [(Place(float(scores[t]), int(group.numbers[t])), int(t)) for t in ranking(group.ledger)]


def best_place(group: Group) -> Place:
    """Return the rank of the best trial in a group, which is last if every trial diverged."""
    ranked = places(group)
    return ranked[0][0] if ranked else Place(math.inf, int(group.numbers[0]))


def table_of(groups: Sequence[Group], ended: dict[int, Record] | None = None) -> Table:
    """Return one row per trial that has begun, best first.

    Args:
      groups: the trials.
      ended: rows of trials that have ended, by number, from earlier calls; new ones are added. Such rows do not change,
        so a call during a long search only creates the others.
    """
    known, rows = {} if ended is None else ended, []

    def row_of(group: Group, trial: int) -> Record:
        number = int(group.numbers[trial])
        if number in known:
            return dict(known[number])  # a callback may change its rows
        row = _row(group, trial)
        if group.ledger.status[trial] > RUNNING:
            known[number] = dict(row)
        return row

    for group in groups:
        ranked = places(group)
        rest = set(np.flatnonzero(group.ledger.status != WAITING).tolist()) - {t for _, t in ranked}
        last = [(Place(math.inf, int(group.numbers[t])), t) for t in rest]
        rows += [(place, row_of(group, t)) for place, t in [*ranked, *last]]
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def networks_of_groups(groups: Sequence[Group], count: int) -> list[TrialNetwork]:
    """Return at most `count` networks, best first, from those that the groups kept."""
    networks = []
    for group in groups:
        if group.position is None:
            continue
        rank, replicates = {t: place for place, t in places(group)}, len(group.schedule.ends)
        rungs = best_rungs(group.ledger)
        for i, trial in enumerate(group.position.trials.tolist()):
            if trial not in rank:
                continue
            part = i if replicates == 1 else slice(i * replicates, (i + 1) * replicates)
            params, state = index_tree(tuple(group.position.networks), part)
            numbers = numbers_of(group.schedule, group.names, group.ledger, trial)
            run = group.make_run({name: jnp.asarray(value) for name, value in numbers.items()})
            place = rank[trial]
            network = TrialNetwork(
                trial=place.number,
                settings={**numbers, **dict(group.fixed)},
                score=place.score,
                epochs=group.epochs[rungs[trial]],
                run=run,
                params=params,
                state=state,
                replicates=None if replicates == 1 else replicates,
            )
            networks.append((place, network))
    return [network for _, network in sorted(networks, key=lambda pair: pair[0])][:count]


def numbers_of(schedule: Schedule, names: Sequence[str], ledger: Ledger, trial: int) -> dict[str, Any]:
    """Return the traced numbers of a trial as Python numbers."""
    units = ledger.units[trial]
    return {
        name: values_at(dimension, units[j : j + 1])[0].item()
        for j, (name, dimension) in enumerate(zip(names, schedule.dimensions, strict=True))
    }


def rank_correlations(groups: Sequence[Group]) -> list[float]:
    """Return Spearman's correlation of the scores at each rung except the last with the final scores; see `Search`."""
    scores = np.concatenate([group.ledger.scores for group in groups])
    return [spearman(early, scores[:, -1]) for early in scores.T[:-1]]


def spearman(first: np.ndarray, last: np.ndarray) -> float:
    """Return the rank correlation of two scores over the trials that have both.

    It is NaN for fewer than 3 trials, or if one of the scores is the same for all of them.

    >>> from nnjax.train.engine.search.results import spearman
    >>> spearman(np.array([1.0, 2.0, 3.0, 9.0]), np.array([0.1, 0.3, 0.2, np.nan]))
    0.5
    """
    both = np.isfinite(first) & np.isfinite(last)
    if both.sum() < 3:
        return math.nan
    a, b = (_ranks(scores[both]) for scores in (first, last))
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size > 0 else math.nan


def advantage_of(groups: Sequence[Group]) -> PairedDifference | None:
    """Return the paired difference between the second-best and the best trial over seeds or folds.

    It is None for one seed, for fewer than two ranked trials, or if a score is not finite.

    Warns:
      UserWarning: if the interval contains 0.
    """
    ranked = sorted((place, t, i) for i, group in enumerate(groups) for place, t in places(group))[:2]
    if len(ranked) < 2 or len(groups[0].schedule.ends) < 2:
        return None
    name = groups[0].schedule.score
    sign = -1.0 if name.startswith("-") else 1.0
    best, second = (
        sign * groups[i].ledger.logs[name.removeprefix("-")][t, best_rungs(groups[i].ledger)[t]] for _, t, i in ranked
    )
    if not (np.isfinite(second).all() and np.isfinite(best).all()):
        return None
    advantage = paired_difference(jnp.asarray(second), jnp.asarray(best))
    if advantage.low <= 0:
        first, other = (place.number for place, _, _ in ranked)
        warnings.warn(
            f"search: trial {first}, the best, is better than trial {other} by {advantage.difference:.3g} "
            f"[{advantage.low:.3g}, {advantage.high:.3g}] over {advantage.n} runs, which is within noise",
            stacklevel=4,
        )
    return advantage


def _row(group: Group, trial: int) -> Record:
    """Return the row of a trial in the table."""
    ledger, replicates = group.ledger, len(group.schedule.ends)
    rung, scored = int(best_rungs(ledger)[trial]), np.isfinite(ledger.scores[trial])
    row: Record = {**numbers_of(group.schedule, group.names, ledger, trial), **dict(group.fixed)}
    row |= {"trial": int(group.numbers[trial]), "status": STATUS[ledger.status[trial]]}
    row["epochs"] = group.epochs[np.flatnonzero(scored)[-1]] if scored.any() else 0.0
    row["score"] = float(ledger.scores[trial, rung]) if scored.any() else math.nan
    for epochs, score in zip(group.epochs, ledger.scores[trial].tolist(), strict=True):
        row[f"{SCORE}{epochs:g}"] = score if math.isfinite(score) else math.nan
    for name, values in ledger.logs.items():
        own = values[trial, rung] if scored.any() else np.full(replicates, np.nan)
        row[f"validation_{name}"] = float(own.mean())
        if replicates > 1:
            row[f"validation_{name}_sd"] = float(own.std(ddof=1))
    if group.schedule.method.donors is not None:
        row["parent"] = int(group.numbers[ledger.parent[trial]]) if ledger.parent[trial] >= 0 else -1
    lost = ledger.diverged[trial][ledger.diverged[trial] >= 0]
    row["diverged"] = int(lost.min()) if lost.size else -1
    return row


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Return the ranks of the scores; equal scores share the mean of their ranks."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place], float)
