"""Run chunks of steps from the host, with validation, saving, callbacks and progress. Chunks do not affect results."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from nnjax import checks
from nnjax.data import Source
from nnjax.train.engine import prefetch
from nnjax.train.engine.debug_operation import Advance, advance_to_operation, raise_at_operation
from nnjax.train.engine.device_loop import CAPACITY, Block, MemberArgs, Status, train_chunk, validate
from nnjax.train.engine.distributed import all_agree, explain_lost_process
from nnjax.train.engine.ensemble import first_member
from nnjax.train.engine.errors import DivergedWarning, InterruptedRun
from nnjax.train.engine.fit_state import NO_PATIENCE, FitState
from nnjax.train.engine.job import Job
from nnjax.train.engine.logs import Logs, single_record
from nnjax.train.engine.options import FitOptions, Record
from nnjax.train.engine.placement import copy_tree, replicate, shard_members, snapshot, to_host
from nnjax.train.engine.resume import Save, resumable
from nnjax.train.engine.signals import deferred_interrupts
from nnjax.train.engine.trainable import refuse_tracing
from nnjax.types import Data, Log

CHUNK_SECONDS = 0.25  # target duration of a chunk, after which progress and Ctrl-C are handled

Show = Callable[[Record], None]
Partial = tuple[FitState, Logs]  # the state and the logs of an interrupted run


class Seconds(NamedTuple):
    """The wall time of a call of `fit`, in seconds."""

    compile: float  # from the start to the first step, mostly compiling; short if the same run was fitted before
    train: float  # running the training program
    validate: float  # running the evaluation program
    total: float


class Outcome(NamedTuple):
    """The result of a job: the final state, logs, times, and the folder of the last checkpoint."""

    fs: FitState  # (members, ...)
    logs: Logs
    seconds: Seconds
    ended_by_callback: bool
    folder: Path | None  # folder of the last checkpoint, which is a new one if `options.folder` was not writable


def run_job(
    job: Job, options: FitOptions, show: Show, *, ended: bool = False, continued: Partial | None = None
) -> Outcome:
    """Take all steps of a job.

    Args:
      job: the ensemble with its arguments and data.
      options: settings for chunks, checkpoints and callbacks.
      show: function that shows the progress; it is called with a record after each chunk.
      ended: True if a callback ended the run in an earlier group; then no steps are taken.
      continued: state and logs of an interrupted run to continue; None to start fresh or from a checkpoint.
    """
    ensemble, ends = job.ensemble, job.members.ends
    start, training, validating = time.perf_counter(), 0.0, 0.0
    with (
        explain_lost_process(options.folder),
        resumable(job, options if continued is None else replace(options, resume=False)) as (restored, save),
        open_data(job, options) as (data, next_feed),
        deferred_interrupts() as interrupted,
    ):
        fs, logs = restored if continued is None else _continue(job, *continued)
        advance, score = chunk_function(job, data), _validation_function(job)
        where = options.folder  # folder of the last checkpoint; changes if this folder is not writable
        saves = where is not None and jax.process_index() == 0  # one process decides when a checkpoint is due
        stops, size, saved_at, final = _stops(job, options), options.chunk_steps or 1, time.perf_counter(), False
        with _rescue(job, save, lambda: (fs, logs, final, where)):
            # Compile the programs by taking zero steps and validating a copy of the state
            fs, log, status = advance(fs, logs.done, logs.done, next_feed(logs.done, interrupted).block)
            logs = logs.with_room(log, job.total_steps)
            if job.held_out is not None:
                score(copy_tree(fs))
            status = to_host(ensemble, status)
            compiled = time.perf_counter() - start
            show({"step": int(logs.done.max(initial=0))})

            while not ended and status.running.any() and (epoch := _next_stop(job, stops, logs)) is not None:
                clock, before = time.perf_counter(), logs.done
                feed = next_feed(before, interrupted)
                until = _chunk_end(job, options, before, epoch, size=size, limit=feed.limit)
                fs, *measured = advance(fs, before, until, feed.block)
                log, status = to_host(ensemble, measured)  # waits for the device
                training += (elapsed := time.perf_counter() - clock)
                size = options.chunk_steps or max(1, int((until - before).max() / elapsed * CHUNK_SECONDS))
                logs = logs.add_steps(log, until, status.step)
                _warn_diverged(job, status.diverged, log["loss"], before)
                survived, at_stop = bool(status.running.any()), bool((until == ends[:, epoch]).all())
                if at_stop and job.held_out is not None and (epoch in job.validated or epoch == job.last_epoch):
                    if epoch not in job.validated:  # save first: a longer run would not validate after this epoch
                        final, where = True, save(fs, logs, wait=True) or where
                    clock = time.perf_counter()
                    fs, scores, status = score(fs)
                    scores, status = to_host(ensemble, (scores, status))
                    logs = logs.add_scores(epoch, scores, status.diverged)
                    validating += time.perf_counter() - clock
                show(logs.record_since(before, job.epoch_steps))
                if survived and _callback_is_due(options, before, until, at_stop=at_stop):
                    ended = _call(job, options, fs, logs, epoch)
                due = saves and time.perf_counter() - saved_at >= options.save_every
                size, (ended, due, stop) = all_agree(size, (ended, due, interrupted()))
                if (due or stop) and not final and (saved := save(fs, logs, wait=stop)):
                    saved_at, where = time.perf_counter(), saved
                if stop:
                    raise _interruption(job, where, fs, logs)
        if not final:
            where = save(fs, logs, wait=True) or where
        if interrupted():
            raise _interruption(job, where, fs, logs)
        seconds = Seconds(compiled, training, validating, total=time.perf_counter() - start)
        return Outcome(snapshot(ensemble, fs), logs, seconds, ended_by_callback=ended, folder=where)


def _continue(job: Job, fs: FitState, logs: Logs) -> Partial:
    """Return the state of an interrupted run, placed on the devices, and its logs."""
    if (logs.done > job.total_steps).any():
        raise ValueError(
            f"fit: the interrupted run has taken {logs.done.max()} steps, but this run has only {job.total_steps}; "
            "continue with at least as many epochs"
        )
    return copy_tree(shard_members(job.ensemble, fs)), logs


def _interruption(job: Job, folder: Path | None, fs: FitState, logs: Logs, *, waiting: bool = False) -> InterruptedRun:
    alone = jax.process_count() == 1  # with several processes, the copy would wait for the others
    part = (snapshot(job.ensemble, fs), logs) if alone else None
    return InterruptedRun(int(logs.done.max(initial=0)), folder, waiting=waiting, partial=part)


@contextmanager
def _rescue(job: Job, save: Save, current: Callable[[], tuple[FitState, Logs, bool, Path | None]]) -> Iterator[None]:
    """Save the last state if an error in the source, in a callback or on the disk ends the run.

    Args:
      job: the job.
      save: function that writes a checkpoint.
      current: function that returns the state, the logs, True if the final checkpoint is already written, and the
        folder of the last checkpoint.
    """
    alone = jax.process_count() == 1  # with several processes, saving would wait for the others
    try:
        yield
    except prefetch.WaitInterruptedError:
        fs, logs, final, folder = current()
        if alone and not final:
            folder = save(fs, logs, wait=True) or folder
        raise _interruption(job, folder, fs, logs, waiting=True) from None
    except Exception as error:
        fs, logs, final, folder = current()
        if logs.done.any():
            usable = alone and not any(leaf.is_deleted() for leaf in jax.tree.leaves(fs))
            saving = partial(save, fs, logs, wait=True) if usable and not final else lambda: folder if final else None
            error.add_note(_describe_rescue(folder, int(logs.done.max()), saving))
        raise


def _describe_rescue(folder: Path | None, step: int, save: Callable[[], Path | None]) -> str:
    """Save, and return a note that says after which step an error happened and how to continue."""
    place = f"fit: this happened after step {step}"
    if folder is None:
        return f"{place}; nothing is saved, because out= was not passed"
    failed = ""
    try:
        if saved := save():
            return f"{place}, which is saved in {saved}; the same call with resume=True continues"
    except Exception as failure:
        failed = f"; that state could not be saved: {failure}"
    return f"{place}{failed}; the same call with resume=True continues from the last checkpoint in {folder}"


def chunk_function(job: Job, data: Data | None) -> Advance:
    """Return `advance(fs, done, until, block)`, which takes the steps `done` … `until - 1` of each member."""
    ensemble = job.ensemble
    fixed = MemberArgs(hyper=shard_members(ensemble, job.members.hyper), rows=shard_members(ensemble, job.members.rows))

    def advance(fs: FitState, done: np.ndarray, until: np.ndarray, block: Block | None) -> tuple[FitState, Log, Status]:
        examples, positions = (data, None) if block is None else block
        args = fixed._replace(positions=positions, until=shard_members(ensemble, until.astype(np.int32)))
        result = train_chunk(ensemble, fs, args, examples, np.int32((until - done).max()))
        refuse_tracing(result[-1])
        return result

    return advance_to_operation(advance, ensemble.members)


@contextmanager
def open_data(job: Job, options: FitOptions) -> Iterator[tuple[Data | None, prefetch.NextFeed]]:
    """Yield the data on the device (None for a source), and a function that returns the feed of the next chunk."""
    if isinstance(job.data, Source):
        stops = [job.members.ends[:, epoch] for epoch in _stops(job, options)]
        with prefetch.prefetched(job, job.data, stops) as next_feed:
            yield None, next_feed
    else:
        yield replicate(job.ensemble, job.data), prefetch.no_feed


def _validation_function(job: Job) -> Callable[[FitState], tuple[FitState, Log, Status]]:
    ensemble = job.ensemble
    held_out = replicate(ensemble, job.held_out)
    args = MemberArgs(
        hyper=shard_members(ensemble, job.members.hyper), rows=shard_members(ensemble, job.members.held_out_rows)
    )
    patience = np.int32(NO_PATIENCE if job.patience is None else job.patience)

    def score(fs: FitState) -> tuple[FitState, Log, Status]:
        return validate(ensemble, fs, args, held_out, patience)

    return lambda fs: raise_at_operation(fs, score, jax.disable_jit()(score))


def _stops(job: Job, options: FitOptions) -> list[int]:
    """Return the epochs after which members wait for each other: for validation, for callbacks, and at the end."""
    if options.callbacks and options.callback_every is None:
        return list(range(job.last_epoch + 1))
    return sorted({*job.validated, *range(job.last_epoch + 1)[-1:]})


def _next_stop(job: Job, stops: list[int], logs: Logs) -> int | None:
    """Return the next epoch to stop at, or None if no work is left."""
    ends = job.members.ends
    for epoch in stops:
        if (logs.done < ends[:, epoch]).any():
            return epoch
    scored = {tuple(ends[:, epoch]) for epoch in logs.epochs}
    unscored = bool(stops) and job.held_out is not None and tuple(ends[:, -1]) not in scored
    return job.last_epoch if unscored else None  # checkpoints do not contain the last validation


def _chunk_end(
    job: Job, options: FitOptions, done: np.ndarray, epoch: int, *, size: int, limit: np.ndarray | None
) -> np.ndarray:
    """Return the number of steps (members,) after which the next chunk ends."""
    size = min(size, CAPACITY)
    if options.callbacks and options.callback_every is not None:
        size = min(size, options.callback_every - int(done.max()) % options.callback_every)
    until = np.clip(done + size, done, np.maximum(done, job.members.ends[:, epoch]))
    return until if limit is None else np.minimum(until, limit)


def _callback_is_due(options: FitOptions, before: np.ndarray, until: np.ndarray, *, at_stop: bool) -> bool:
    """Return True at the end of an epoch, or when the most advanced member reaches a multiple of `callback_every`."""
    if options.callback_every is None:
        return at_stop
    return bool(until.max() > before.max() and until.max() % options.callback_every == 0)


def _call(job: Job, options: FitOptions, fs: FitState, logs: Logs, epoch: int) -> bool:
    """Call the callbacks with a copy of the state; return True if one of them ends the run."""
    if not options.callbacks:
        return False
    if options.callback_every is None:
        ends = job.members.ends
        earlier = next((e for e in reversed(range(epoch)) if (ends[:, e] < ends[:, epoch]).any()), None)
        since = np.zeros_like(logs.done) if earlier is None else ends[:, earlier]
        record = logs.record_since(since, job.epoch_steps) | {"epoch": min(epoch + 1.0, job.epochs)}
    else:
        record = logs.record_since(np.maximum(0, logs.done - options.callback_every), job.epoch_steps)
    ts = snapshot(job.ensemble, fs.train)
    if not job.numbered:
        ts, record = first_member(ts), single_record(record)
    answers = [callback(ts, record) for callback in options.callbacks]
    for answer in answers:
        if answer is not None and not isinstance(answer, bool | np.bool_):
            raise TypeError(
                f"fit: a callback must return True to end the run, or False or None to continue, got {answer!r}"
            )
    return any(answers)


def _warn_diverged(job: Job, diverged: np.ndarray, losses: np.ndarray, done: np.ndarray) -> None:
    for i in np.flatnonzero(diverged >= done):
        step = int(diverged[i])
        member = job.first + int(i) if job.numbered else None
        checks.warn(DivergedWarning(step, float(losses[i, step - done[i]]), member))
