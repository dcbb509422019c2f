"""Simulate the decisions of a search without training; they depend only on the space, the key and the scores."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from nnjax.train.engine.search.groups import GROUP_KEEP, group_rounds, split_space
from nnjax.train.engine.search.methods import METHODS
from nnjax.train.engine.search.results import Group, best_place
from nnjax.train.engine.search.schedule import FREE, Schedule, first_state, is_due, next_state, round_end
from nnjax.train.space import Dimension


class Scored(NamedTuple):
    """The results of all trials, as functions of the trial number."""

    score: Callable[[int, int], float]  # (trial, rung) -> the score at a rung; NaN if it was not finite
    diverged: Callable[[int], int]  # trial -> the first step with a non-finite loss in any fold, or -1


class Decisions(NamedTuple):
    """The result of a simulated search: its groups of trials, and the numbers of steps and decisions."""

    groups: list[Group]
    trial_steps: int  # total number of steps of all trials, counting all folds, but only one seed
    rounds: int  # number of decisions
    longest: int  # number of sequential steps from the beginning to the end


def decide(
    space: Mapping[str, Dimension],
    ends: Callable[[tuple[tuple[str, Any], ...]], np.ndarray],
    scored: Scored,
    *,
    trials: int,
    population: int,
    epochs: tuple[float, ...],
    keep: float,
    method: str,
    key: tuple[int, ...],
    patience: int | None = None,
) -> Decisions:
    """Simulate a search whose trials have the given scores, and return its result.

    Args:
      space: see `search`.
      ends: function from the fixed settings of a structure to the steps at which its rungs are reached, as an array
        (folds, rungs); a single row stands for all seeds.
      scored: the results of the trials.
      trials: see `search`.
      population: see `search`.
      epochs: the rungs, as numbers of epochs.
      keep: share of the trials that continue at a rung.
      method: name of the method.
      key: the search's random key as integers, see `key_words`.
      patience: see `search`.
    """
    traced, structures = split_space(space)
    untrained: Any = None  # `make_run` of the groups; the simulation trains nothing
    groups: dict[int, Group] = {}
    order = list(range(len(structures)))
    trial_steps = rounds = longest = 0
    for counts in group_rounds(len(structures), trials, GROUP_KEEP.get(method, keep)):
        for index, count in zip(order, counts, strict=False):
            earlier, fixed = groups.get(index), structures[index]
            schedule = Schedule(
                tuple(traced.values()),
                count if earlier is None else count + earlier.schedule.trials,
                slots=min(population, count),
                ends=ends(fixed),
                keep=keep,
                score="score",
                key=(*key, index) if fixed else key,
                method=METHODS[method],
                patience=patience,
            )
            begun = sum(len(group.numbers) for group in groups.values())
            numbers = np.arange(begun, begun + count)
            numbers = numbers if earlier is None else np.concatenate([earlier.numbers, numbers])
            state, _ = first_state(schedule, None if earlier is None else earlier.ledger)
            while (state.trial != FREE).any():
                until = round_end(schedule, state)
                trial_steps += int((until - state.done).sum())
                longest += int((until - state.done).max())
                rounds += 1
                due, ledger = is_due(schedule, state, until), state.ledger
                scores, diverged = np.zeros((schedule.slots, 1)), np.full((schedule.slots, 1), -1)
                for slot in np.flatnonzero(state.trial != FREE):
                    number = int(numbers[state.trial[slot]])
                    if due[slot]:
                        scores[slot] = scored.score(number, int(ledger.rung[state.trial[slot]]))
                    step = scored.diverged(number)
                    if 0 <= step < until[slot].min():
                        diverged[slot] = step
                state, _ = next_state(schedule, state, until, {"score": scores}, diverged)
            groups[index] = Group(untrained, fixed, tuple(traced), epochs, schedule, state.ledger, numbers)
        order = sorted(groups, key=lambda index: best_place(groups[index]))
    return Decisions(list(groups.values()), trial_steps, rounds, longest)
