"""The host's loop over the chunks of a program: validation, saving, progress. It never changes a result."""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.data.source import Source
from nnjax.train.engine import prefetch
from nnjax.train.engine.device_loop import CAPACITY, Block, Member, Status, begin, chunk, validation
from nnjax.train.engine.distributed import agree, lost_told
from nnjax.train.engine.ensemble import Program, fetch, put, put_each, restore, snapshot
from nnjax.train.engine.fingerprint import Identity, identity
from nnjax.train.engine.fit_state import NEVER, FitState
from nnjax.train.engine.resume import Logs, Save, Saving, load, saver
from nnjax.train.engine.signals import held_back
from nnjax.train.folds import Rows
from nnjax.train.run import Log
from nnjax.types import Data, Key, PyTree, TrainState

CHUNK_SECONDS = 0.25  # how long the host waits between looks at the device: the bar's and Ctrl-C's delay

Record = dict[str, Any]  # numbers, or for an ensemble arrays (members,)
Callback = Callable[[TrainState, Record], bool | None]


class Job(NamedTuple):
    """A program and all its arguments, on the host; what each member has of its own with an axis (members, ...)."""

    program: Program
    keys: Key
    hyper: PyTree  # None for a run that is given
    data: Data | Source
    rows: Rows | None
    held_out: Data | None
    held_out_rows: Rows | None
    ends: np.ndarray  # (members, epochs), the step after which each epoch ends
    validated: frozenset[int]  # the epochs, from 0, after which is validated
    validate_every: int  # epochs
    patience: int | None  # validations
    epoch_steps: float  # steps in an epoch, for progress
    first: int = 0  # the number of its first member, where it is a group of several


class Seconds(NamedTuple):
    """Where the wall time of a `fit` went."""

    compile: float  # tracing and compiling init, chunk and evaluation; almost nothing in a second fit of the same run
    train: float  # inside the training program
    validate: float  # inside the evaluation program
    total: float


def drive(
    job: Job, *, chunk_steps: int | None, saving: Saving | None, callbacks: Sequence[Callback], over: bool = False
) -> tuple[FitState, Logs, Seconds, bool]:
    """All steps of a job.

    Args:
      job: the job.
      chunk_steps: most steps between two looks of the host; None for a quarter of a second.
      saving: where and when checkpoints are written; None for none.
      callbacks: called after each chunk; one that returns True ends the run.
      over: whether the run was ended before this job, a group of its members, began: no steps.

    Returns:
      The state on the device, (members, ...) without those that fill up, the logs, where the time went, and whether
      a callback ended the run.
    """
    program = job.program
    began = time.perf_counter()
    training = validating = 0.0
    with (
        lost_told(saving and saving.folder),
        _started(job, saving) as started,
        open_feed(job) as (data, following),
        held_back() as interrupted,
    ):
        fs, logs, save = started
        advance = stepper(job, data)
        held_out = put(program, job.held_out)
        hyper, held_out_rows = put_each(program, (job.hyper, job.held_out_rows))
        patience = np.int32(NEVER if job.patience is None else job.patience)

        def validate(fs: FitState) -> tuple[FitState, Log, Status]:
            return validation(program, fs, hyper, held_out_rows, held_out, patience)

        # No steps, and the validation of a copy: they compile
        fs, _, status = advance(fs, logs.done, logs.done, following(logs.done).block)
        if job.validated:
            validate(jax.tree.map(jnp.copy, fs))
        status = fetch(program, status)
        compiled = time.perf_counter() - began

        writes = jax.process_index() == 0  # the others do not know when it last did
        stops, size, saved_at = _stops(job), chunk_steps or 1, time.perf_counter()
        while not over and status.alive.any() and (epoch := _next_stop(job, stops, logs.done)) is not None:
            clock = time.perf_counter()
            reading = following(logs.done)
            until = np.clip(logs.done + min(size, CAPACITY), logs.done, np.maximum(logs.done, job.ends[:, epoch]))
            until = until if reading.limit is None else np.minimum(until, reading.limit)
            n = int((until - logs.done).max())
            fs, log, status = advance(fs, logs.done, until, reading.block)
            losses, status = fetch(program, (log["loss"], status))  # waits for the device
            elapsed = time.perf_counter() - clock
            training += elapsed
            size = chunk_steps or max(1, int(n / elapsed * CHUNK_SECONDS))
            _warn_diverged(job, status.diverged, losses, logs.done)
            logs = _logged(logs, losses, until)
            if epoch in job.validated and (until == job.ends[:, epoch]).all():
                clock = time.perf_counter()
                fs, scores, status = validate(fs)
                scores, status = fetch(program, (scores, status))
                logs.epochs.append(epoch)
                logs.scores.append(_scored(scores, status.diverged))
                validating += time.perf_counter() - clock
            record = _record(job, logs, losses[:, :n])
            ts = _without_padding(program, fs.train)
            answers = [callback(ts, record) for callback in callbacks]
            due = writes and saving is not None and time.perf_counter() - saved_at >= saving.every
            size, (over, due, stop) = agree(size, (any(answers), due, interrupted()))
            if (due or stop) and save(fs, logs, wait=stop):
                saved_at = time.perf_counter()
            if stop:
                raise KeyboardInterrupt(_how_to_go_on(saving, int(until.max())))
        save(fs, logs, wait=True)
        if interrupted():
            raise KeyboardInterrupt(_how_to_go_on(saving, int(logs.done.max(initial=0))))
        return snapshot(program, fs), logs, Seconds(compiled, training, validating, time.perf_counter() - began), over


Advance = Callable[[FitState, np.ndarray, np.ndarray, Block | None], tuple[FitState, Log, Status]]


def stepper(job: Job, data: Data | None) -> Advance:
    """`advance(fs, done, until, block)`: each member's steps from `done` on, CAPACITY at most, to before `until`."""
    program = job.program
    fixed = Member(hyper=put_each(program, job.hyper), rows=put_each(program, job.rows))

    def advance(fs: FitState, done: np.ndarray, until: np.ndarray, block: Block | None) -> tuple[FitState, Log, Status]:
        examples, place = (data, None) if block is None else block
        each = fixed._replace(place=place, until=put_each(program, until.astype(np.int32)))
        return chunk(program, fs, each, examples, np.int32((until - done).max()))

    return advance


@contextmanager
def open_feed(job: Job) -> Iterator[tuple[Data | None, prefetch.Next]]:
    """The data that the program holds, and what it is given before each chunk."""
    if not isinstance(job.data, Source):
        yield put(job.program, job.data), prefetch.from_memory
        return
    stops = [job.ends[:, epoch] for epoch in _stops(job)]
    with prefetch.from_source(job.program, job.data, job.keys, job.hyper, job.rows, stops) as following:
        yield None, following


@contextmanager
def _started(job: Job, saving: Saving | None) -> Iterator[tuple[FitState, Logs, Save]]:
    """The state and the logs before the first chunk, and what saves.

    The folder belongs to this process before it is read: no other deletes meanwhile what is listed in it.
    """
    me = {} if saving is None else _identity(job)
    with saver(saving, job.program, me) as save:
        yield *_start(job, saving, me), save


def _identity(job: Job) -> Identity:
    """What the run is."""
    validation = (job.held_out, job.held_out_rows, job.patience, job.validate_every if job.validated else None)
    return identity(job.program, job.keys, job.hyper, job.data, sample_of(job), job.rows, validation)


def _start(job: Job, saving: Saving | None, me: Identity) -> tuple[FitState, Logs]:
    """The state and the logs before the first chunk, new or those of the last checkpoint."""
    program, members = job.program, len(job.ends)
    total = int(job.ends[:, -1].max()) if job.ends.size else 0
    logs = Logs(np.zeros(members, np.int64), np.full((members, total), np.nan, jnp.result_type(float)), [], [])
    fs = first_state(job)
    saved = saving and load(saving, me, jax.eval_shape(partial(snapshot, program), fs), logs)
    if saved is not None:
        fs, logs = saved
        fs = restore(program, fs)
    # A copy, for chunks give the memory of their argument away, and two leaves of a state may be the same array
    return jax.tree.map(jnp.copy, fs), logs


def sample_of(job: Job) -> Data:
    """Some examples, or all, of which shapes and dtypes are read."""
    return job.data.gather(np.zeros(1, np.int64)) if isinstance(job.data, Source) else job.data


def first_state(job: Job) -> FitState:
    """The state before the first step, on the device."""
    keys, hyper = put_each(job.program, (job.keys, job.hyper))
    return begin(job.program, keys, hyper, put(job.program, sample_of(job)), validated=bool(job.validated))


def _stops(job: Job) -> list[int]:
    """The epochs at whose ends members wait for each other."""
    return sorted(job.validated | set(range(job.ends.shape[1])[-1:]))


def _next_stop(job: Job, stops: list[int], done: np.ndarray) -> int | None:
    """The next of the stops; None where all is done."""
    ahead = (done[:, None] < job.ends[:, stops]).any(0)
    return stops[int(ahead.argmax())] if ahead.any() else None


def _scored(scores: dict[str, np.ndarray], diverged: np.ndarray) -> dict[str, np.ndarray]:
    """The scores as they are logged: a member that diverged has none, however finite its metric of NaN may be."""
    float_ = jnp.result_type(float)
    return {name: np.where(diverged >= 0, np.nan, score).astype(float_) for name, score in scores.items()}


def _without_padding(program: Program, ts: TrainState) -> TrainState:
    """The state of the members, without those that only fill up the devices."""
    if program.members is None or program.padded == program.members:
        return ts
    return jax.tree.map(lambda a: a[: program.members], ts)


def _logged(logs: Logs, losses: np.ndarray, until: np.ndarray) -> Logs:
    """The logs with the losses (members, ...) of a chunk."""
    for f, (start, stop) in enumerate(zip(logs.done, until, strict=True)):
        logs.losses[f, start:stop] = losses[f, : stop - start]
    return logs._replace(done=until)


def _record(job: Job, logs: Logs, losses: np.ndarray) -> Record:
    """What callbacks and the bar are told after a chunk."""
    step = int(logs.done.max())
    scores = {f"validation_{name}": score for name, score in logs.scores[-1].items()} if logs.scores else {}
    each = {"loss": mean(losses)} | scores
    numbers = {name: float(value[0]) if job.program.members is None else value for name, value in each.items()}
    return {"step": step, "epoch": step / job.epoch_steps} | numbers


def mean(losses: np.ndarray) -> np.ndarray:
    """Mean over the steps that each member (members, steps) took; NaN where it took none."""
    taken = ~np.isnan(losses)
    with np.errstate(invalid="ignore"):
        return np.where(taken, losses, 0).sum(1) / taken.sum(1)


def _warn_diverged(job: Job, diverged: np.ndarray, losses: np.ndarray, done: np.ndarray) -> None:
    for member in np.flatnonzero(diverged >= done):
        step = diverged[member]
        who = "" if job.program.members is None else f" of member {job.first + member}"
        warnings.warn(
            f"fit: the loss of step {step}{who} is {losses[member, step - done[member]]}; it is the run's last. "
            "train.replay(…) finds where; a smaller learning rate or optax.clip_by_global_norm may help",
            RuntimeWarning,
            stacklevel=5,
        )


def _how_to_go_on(saving: Saving | None, step: int) -> str:
    if saving is None:
        return f"stopped after step {step}; nothing is saved, for fit was given no folder out="
    return f"stopped after step {step}, saved in {saving.folder}; the same call with resume=True goes on"
