"""Run the rounds of a search from the host: steps, scores, decisions and moves. Results do not depend on timing."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.data import Source
from nnjax.train.engine.device_loop import CAPACITY, Block, MemberArgs, train_chunk
from nnjax.train.engine.distributed import all_agree, explain_lost_process
from nnjax.train.engine.errors import InterruptedRun
from nnjax.train.engine.fit_state import FitState
from nnjax.train.engine.host_loop import CHUNK_SECONDS, Seconds
from nnjax.train.engine.job import Job
from nnjax.train.engine.placement import replicate, shard_members, to_host
from nnjax.train.engine.prefetch import gatherer, to_device
from nnjax.train.engine.search.population import population_programs
from nnjax.train.engine.search.saving import Position, SavePosition, SearchOptions, resumable_search
from nnjax.train.engine.search.schedule import (
    DIVERGED,
    FREE,
    Ledger,
    Moves,
    Schedule,
    SearchState,
    is_due,
    next_state,
    round_end,
)
from nnjax.train.engine.signals import deferred_interrupts
from nnjax.train.space import values_at
from nnjax.types import PyTree

Show = Callable[[Ledger], bool]  # called after each decision; True ends the search


class MemberStatus(NamedTuple):
    """The status of all members on the host, in arrays (members,); see `device_loop.Status`."""

    diverged: np.ndarray
    running: np.ndarray
    step: np.ndarray


class SearchOutcome(NamedTuple):
    """The result of `run_search`."""

    position: Position
    seconds: Seconds
    ended_by_callback: bool


def run_search(
    job: Job,
    schedule: Schedule,
    names: Sequence[str],
    options: SearchOptions,
    show: Show,
    earlier: Position | None = None,
) -> SearchOutcome:
    """Train until all trials have ended.

    Args:
      job: the population with its data and arguments, which include the hyper-parameters of the first trials.
      schedule: the schedule of the search.
      names: the names of the schedule's dimensions.
      options: settings for checkpoints, and the number of networks to keep.
      show: function that is called with the ledger after each decision; True ends the search.
      earlier: the position after the group's previous round; None in the first round.

    Raises:
      InterruptedRun: on Ctrl-C, SIGTERM or SIGHUP, once the position is saved.
    """
    start, ensemble, replicates = time.perf_counter(), job.ensemble, len(schedule.ends)
    programs, advance = population_programs(job, replicates), advance_function(job)
    training = validating = 0.0
    saved_at = start
    with (
        explain_lost_process(options.folder),
        resumable_search(job, schedule, options, earlier) as (begin, steps_before, save),
        deferred_interrupts() as interrupted,
    ):

        def pause(position: Position, steps: int) -> None:
            """Save if a checkpoint is due, and raise InterruptedRun after Ctrl-C."""
            nonlocal saved_at
            due = options.folder is not None and time.perf_counter() - saved_at >= options.save_every
            _, (due, stop) = all_agree(0, (due, interrupted()))
            if (due or stop) and save(position, steps, wait=stop):
                saved_at = time.perf_counter()
            if stop:
                raise InterruptedRun(steps, options.folder)

        (fs, state, networks, trials), steps = begin, steps_before
        hyper = programs.place(hyper_of(schedule, names, state))
        # Compile the programs by running them without steps, scores and moves
        none = np.zeros(schedule.slots, bool)
        fs, status = advance(fs, hyper, np.zeros(ensemble.members, np.int64), np.zeros(ensemble.members, np.int64))
        programs.score(fs, hyper, none)
        fs = programs.move(fs, Moves(np.arange(schedule.slots), none), hyper)
        compiled, ended, size = time.perf_counter() - start, False, 1

        while not ended and (state.trial != FREE).any():
            until, clock = round_end(schedule, state), time.perf_counter()
            while (left := np.where(status.running, until.reshape(-1) - status.step, 0).clip(0)).any():
                before, chunk = status.step, min(size, CAPACITY)
                began = time.perf_counter()
                fs, status = advance(fs, hyper, before, before + np.minimum(left, chunk))
                steps += int((status.step - before).sum())
                size = max(1, int(min(chunk, left.max()) / (time.perf_counter() - began) * CHUNK_SECONDS))
                pause(Position(fs, state, networks, trials), steps)
            training, clock = training + time.perf_counter() - clock, time.perf_counter()
            due = is_due(schedule, state, until)
            scores = to_host(ensemble, programs.score(fs, hyper, due))
            validating += time.perf_counter() - clock
            by_slot = {name: a.astype(float).reshape(due.size, replicates) for name, a in scores.items()}
            following, moves = next_state(schedule, state, until, by_slot, status.diverged.reshape(due.size, -1))
            index, trials = _best_networks(following.ledger, state.trial, due, trials, replicates)
            if (index >= len(index)).any():
                networks = programs.keep(networks, fs, hyper, index)
            state, hyper = following, programs.place(hyper_of(schedule, names, following))
            fs = programs.move(fs, moves, hyper)
            status = _status_after(status, moves, replicates)
            with _rescued(options.folder, save, Position(fs, state, networks, trials), steps):
                _, (ended,) = all_agree(0, (show(state.ledger),))
            pause(Position(fs, state, networks, trials), steps)
        end = Position(fs, state, networks, trials)
        save(end, steps, wait=True)
        seconds = Seconds(compiled, training, validating, total=time.perf_counter() - start)
        return SearchOutcome(end, seconds, ended_by_callback=ended)


@contextmanager
def _rescued(folder: Path | None, save: SavePosition, position: Position, steps: int) -> Iterator[None]:
    """Save the position if a callback raises an error, and add a note to the error."""
    try:
        yield
    except Exception as error:
        if folder is not None and jax.process_count() == 1:  # with several processes, saving would wait for the others
            save(position, steps, wait=True)
            error.add_note(
                f"search: the trials before this error are saved in {folder}; the same call with resume=True continues"
            )
        raise


def hyper_of(schedule: Schedule, names: Sequence[str], state: SearchState) -> dict[str, Any]:
    """Return the hyper-parameters (members,) of the trials in the slots. They are undefined for empty slots."""
    units = state.ledger.units[np.where(state.trial == FREE, 0, state.trial)]
    columns = {
        name: values_at(dimension, units[:, j])
        for j, (name, dimension) in enumerate(zip(names, schedule.dimensions, strict=True))
    }
    return {name: jnp.asarray(np.repeat(column, len(schedule.ends))) for name, column in columns.items()}


def ranking(ledger: Ledger) -> np.ndarray:
    """Return the trials with a score, sorted by their lowest score at any rung and then by number.

    Diverged trials are left out.
    """
    scores = best_scores(ledger)
    ranked = np.flatnonzero(np.isfinite(scores) & (ledger.status != DIVERGED))
    return ranked[np.argsort(scores[ranked], kind="stable")]


def best_scores(ledger: Ledger) -> np.ndarray:
    """Return the lowest score (trials,) of each trial, or infinity if it has none."""
    return np.where(np.isfinite(ledger.scores), ledger.scores, np.inf).min(1)


def best_rungs(ledger: Ledger) -> np.ndarray:
    """Return the rung (trials,) at which each trial had its lowest score, or 0 if it has none."""
    return np.where(np.isfinite(ledger.scores), ledger.scores, np.inf).argmin(1)


def _best_networks(
    ledger: Ledger, trial: np.ndarray, due: np.ndarray, trials: np.ndarray, replicates: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of each network to keep, as `keep_networks` needs it, and its trial, both (networks,).

    Args:
      ledger: the ledger with the scores of this round.
      trial: (slots,) the trials in the slots before the decision.
      due: (slots,) bool, the slots with new scores.
      trials: (networks,) the trials whose networks are kept so far, or -1.
      replicates: number of networks of each trial.
    """
    place = {int(t): i for i, t in enumerate(trials) if t >= 0}
    rung = best_rungs(ledger)
    improved = [slot for slot in np.flatnonzero(due) if rung[trial[slot]] == ledger.rung[trial[slot]] - 1]
    place |= {int(trial[slot]): len(trials) + int(slot) for slot in improved}
    best = [int(t) for t in ranking(ledger) if int(t) in place][: len(trials)]
    padded = np.array(best + [-1] * (len(trials) - len(best)))
    # Unused places stay unchanged
    source = np.array([place[t] if t >= 0 else i for i, t in enumerate(padded)])
    return (source[:, None] * replicates + np.arange(replicates)).reshape(-1), padded


def _status_after(status: MemberStatus, moves: Moves, replicates: int) -> MemberStatus:
    """Return the status (members,) after networks were moved."""
    fresh = np.repeat(moves.fresh, replicates)
    source = (moves.source[:, None] * replicates + np.arange(replicates)).reshape(-1)
    return MemberStatus(
        diverged=np.where(fresh, -1, status.diverged[source]),
        running=np.where(fresh, True, status.running[source]),
        step=np.where(fresh, 0, status.step[source]),
    )


def advance_function(job: Job) -> Callable[[FitState, PyTree, np.ndarray, np.ndarray], tuple[FitState, MemberStatus]]:
    """Return `advance(fs, hyper, step, until)`, which takes the steps `step` … `until - 1` of each member."""
    ensemble, rows = job.ensemble, shard_members(job.ensemble, job.members.rows)

    def chunk(
        fs: FitState, hyper: PyTree, step: np.ndarray, until: np.ndarray, block: Block
    ) -> tuple[FitState, MemberStatus]:
        args = MemberArgs(hyper, rows, block.positions, until=shard_members(ensemble, until.astype(np.int32)))
        fs, _, status = train_chunk(ensemble, fs, args, block.data, np.int32((until - step).max()))
        return fs, MemberStatus(*to_host(ensemble, status))

    if not isinstance(job.data, Source):
        data = replicate(ensemble, job.data)
        return lambda fs, hyper, step, until: chunk(fs, hyper, step, until, Block(data, None))
    gather, size = gatherer(job, job.data, threading.Event())

    def advance(fs: FitState, hyper: PyTree, step: np.ndarray, until: np.ndarray) -> tuple[FitState, MemberStatus]:
        while True:  # runs at least once, even without steps, to get the status
            limit = np.minimum(until, step + size)
            fs, status = chunk(fs, hyper, step, limit, to_device(ensemble, gather(step, limit)))
            if (limit == until).all():
                return fs, status
            step = limit

    return advance
