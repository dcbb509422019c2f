"""A step of a run again: the state before it, its batch, and where in it a NaN or an infinity arose."""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nnjax.data.source import Source
from nnjax.train import checkpoint
from nnjax.train.chunk import CAPACITY
from nnjax.train.drive import Job, first_state, open_feed, stepper
from nnjax.train.found import Found
from nnjax.train.nonfinite import first_nonfinite
from nnjax.train.program import fetch, restore, snapshot
from nnjax.train.resume import read
from nnjax.train.run import Run, length, take
from nnjax.train.state import FitState
from nnjax.types import Data, TrainState

LOOK = 64  # steps between looks at the state; only the last so many are then gone through one by one


class Replay(NamedTuple):
    """A step, ready to be looked at: `run.step(ts, batch)` is the step itself."""

    run: Run
    step: int
    member: int | None
    ts: TrainState  # before the step
    batch: Data
    rows: np.ndarray  # (batch,) of the data
    found: Found | None  # where a value that is not finite arose; None where the step has none

    def __str__(self) -> str:
        where = f"step {self.step}" + ("" if self.member is None else f", member {self.member}")
        if self.found is None:
            return f"{where}: everything is finite"
        rows = [int(self.rows[i]) for i in self.found.rows if i < len(self.rows)]
        return f"{where}: {self.found}" + (f"; rows {', '.join(map(str, rows[:8]))} of the data" if rows else "")


def replay(
    job: Job, *, step: int | None = None, member: int | None = None, checkpoints: Path | None = None
) -> Replay | None:
    """A step of a job again: the one asked for, or the first after which something is not finite.

    The program of the run itself is run to the state before the step. The step is then evaluated one primitive at a
    time.

    Args:
      job: the recorded job.
      step: which one, from 0; None for the first whose loss, parameters, state or optimizer state are not finite.
      member: which one; None for the first to have such a step. With strategy "map" it is run alone, for it has the
        same bits.
      checkpoints: folder from which a state before the step is taken, if it holds one.

    Returns:
      The step; None where none was asked for and everything stays finite to the end.

    Raises:
      ValueError: for a member or a step that the job does not have.
    """
    members = len(job.ends)
    if member is not None and not 0 <= member < members:
        raise ValueError(f"replay: member must be in 0 … {members - 1}, got {member}")
    total = int(job.ends[:, -1].max()) if job.ends.size else 0
    if step is not None and not 0 <= step < total:
        raise ValueError(f"replay: step must be in 0 … {total - 1}, the steps of the run, got {step}")
    whole = job
    alone = member is not None and job.program.strategy == "map"
    if alone and member is not None:
        job = _alone(job, member)
    fs = _start(whole, job, member if alone else None, checkpoints, step)
    here = 0 if alone or member is None else member  # where the member stands in the job
    if step is not None:
        states = _states(job, fs, step, CAPACITY)
        last = deque((snapshot(job.program, after) for after, _ in states), maxlen=1)
        return _at(job, last[0] if last else snapshot(job.program, fs), here, member)

    first = _finite(first_state(job))
    kept = snapshot(job.program, fs)
    for every in (LOOK, 1):
        fs = jax.tree.map(jnp.copy, restore(job.program, kept))
        for after, _ in _states(job, fs, total, every):
            bad = np.asarray(fetch(job.program, _spoilt(after, first)))
            if member is not None:
                bad = bad & (np.arange(len(bad)) == here)
            if bad.any():
                break
            kept = snapshot(job.program, after)
        else:
            return None
    where = int(np.flatnonzero(bad)[0])
    return _at(job, kept, where, member if alone or job.program.members is None else where)


def _states(job: Job, fs: FitState, until: int, every: int) -> Iterator[tuple[FitState, np.ndarray]]:
    """The state after each so many steps. It is given on to the next chunk: copy what is kept."""
    done = np.asarray(fetch(job.program, fs.train.step), np.int64)
    with open_feed(job) as (data, following):
        advance = stepper(job, data)
        while (done < until).any():
            reading = following(done)
            stop = np.minimum(done + every, until)
            stop = stop if reading.limit is None else np.minimum(stop, reading.limit)
            fs, _, _ = advance(fs, done, stop, reading.block)
            done = stop
            yield fs, done


def _start(whole: Job, job: Job, member: int | None, checkpoints: Path | None, step: int | None) -> FitState:
    """The state to begin from: that of the last checkpoint that is sound and not beyond the step, or the first."""
    program = job.program
    begun = first_state(job)
    for path in reversed(checkpoint.files(checkpoints) if checkpoints is not None else []):
        with suppress(ValueError):
            fs, logs = read(path, jax.eval_shape(partial(snapshot, whole.program), first_state(whole)))
            if member is not None:
                fs = jax.tree.map(lambda a: a[member], fs)
            fs = restore(program, fs)
            sound = not np.asarray(fetch(program, _spoilt(fs, _finite(begun)))).any()
            if sound and (step is None or logs.done.max() <= step):
                begun = fs
                break
    return jax.tree.map(jnp.copy, begun)


def _alone(job: Job, member: int) -> Job:
    """The job of one member as a lone run."""
    program = replace(job.program, members=None, mesh=None)
    one = slice(member, member + 1)
    hyper, rows, held_out_rows = jax.tree.map(lambda a: a[one], (job.hyper, job.rows, job.held_out_rows))
    return job._replace(
        program=program, keys=job.keys[one], hyper=hyper, rows=rows, held_out_rows=held_out_rows, ends=job.ends[one]
    )


@jax.jit
def _finite(fs: FitState) -> list[Array]:
    """Where the leaves of a training state are finite; an optimizer's may start with infinities."""
    return [jnp.isfinite(leaf) for leaf in _floating(fs.train)]


@jax.jit
def _spoilt(fs: FitState, first: list[Array]) -> Array:
    """Whether the loss was not finite, or a value is not that was so at first; of each member."""
    spoilt = fs.diverged >= 0
    for leaf, finite in zip(_floating(fs.train), first, strict=True):
        spoilt |= (finite & ~jnp.isfinite(leaf)).any(tuple(range(spoilt.ndim, leaf.ndim)))
    return spoilt


def _floating(ts: TrainState) -> list[Array]:
    leaves = jax.tree.leaves((ts.params, ts.state, ts.opt_state))
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]


def _at(job: Job, fs: FitState, where: int, member: int | None) -> Replay:
    """The step that comes after a state."""
    program = job.program
    pick = (lambda a: a) if program.members is None else (lambda a: a[where])
    ts = jax.tree.map(pick, fs.train)
    run = program.run(jax.tree.map(lambda a: a[where], job.hyper))
    n = job.data.n if isinstance(job.data, Source) else length(job.data)
    size = n if job.rows is None else int(job.rows.sizes[where])
    rows = np.arange(size) if run.batch_size is None else np.asarray(run.rows(ts, size, 1)[0])
    rows = rows if job.rows is None else np.asarray(job.rows.table[where])[rows]
    batch = jax.tree.map(jnp.asarray, job.data.gather(rows)) if isinstance(job.data, Source) else take(job.data, rows)
    found = first_nonfinite(run.step, ts, batch, names=("state", "batch"))
    return Replay(run, int(ts.step), member, ts, batch, rows, found)
