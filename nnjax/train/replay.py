"""A step of a run again: the state before it, its batch, and where in it a NaN or an infinity arose."""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nnjax.data.source import Source
from nnjax.train import checkpoint
from nnjax.train.chunk import CAPACITY
from nnjax.train.drive import Job, first_state, open_feed, sample_of, stepper
from nnjax.train.fit import member_keys
from nnjax.train.folds import Folds
from nnjax.train.found import Found
from nnjax.train.identity import MACHINE, differences, identity, table
from nnjax.train.job import make_job
from nnjax.train.nonfinite import first_nonfinite
from nnjax.train.program import Program, Strategy, fetch, restore, snapshot
from nnjax.train.resume import read
from nnjax.train.run import Run, length, take
from nnjax.train.state import FitState
from nnjax.types import Data, Key, TrainState

BESIDE = (*MACHINE, "batch over", "validation", "metrics")  # what a step may be replayed without
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
    run: Run,
    data: Data | Source | tuple[Any, ...],
    *,
    epochs: float,
    key: Key | None = None,
    members: int | None = None,
    strategy: Strategy = "map",
    folds: Folds | None = None,
    step: int | None = None,
    member: int | None = None,
    out: str | Path | None = None,
) -> Replay | None:
    """A step of a `fit` again, and where in it a NaN or an infinity arose.

    The program of the fit runs to the state before the step; the step is then evaluated one primitive at a time. The
    one that makes something not finite of finite inputs is named: step, member, layer or loss or update, primitive,
    and the rows of the data. Validation and early stopping play no part.

    Args:
      run: as for `fit`, like all up to `folds`; with the same arguments it is the same run to the bit.
      data: see `fit`.
      epochs: see `fit`; no later step is looked at.
      key: see `fit`.
      members: see `fit`.
      strategy: see `fit`.
      folds: see `fit`.
      step: which step, from 0; None for the first after which the loss, the parameters, or the state of network or
        optimizer are not finite.
      member: which one; None for the first to have such a step. With strategy "map" it is run alone, for it has the
        same bits.
      out: folder of checkpoints of the run; the last before the step saves the way to it.

    Returns:
      `Replay(run, step, member, ts, batch, rows, found)`: `run.step(ts, batch)` is the step itself. None where no step
      was asked for and everything stays finite.

    Raises:
      ValueError: for a member or a step that the run does not have, or where `out` holds another run.

    >>> run = train.Run(nn.serial(nn.dense(8), jnp.exp, nn.dense(1)), losses.squared_error, optim.sgd(1.0), 4)
    >>> x = jnp.arange(16.0)[:, None]
    >>> print(train.replay(run, (x, x), epochs=2))
    step 1: ...
    """
    if folds is not None:
        members = len(folds.train.table)
    keys, members = member_keys(jax.random.key(0) if key is None else key, members)
    job = make_job(Program(run, members, strategy), None, keys, data, epochs=epochs, folds=folds)
    return replay_job(job, step=step, member=member, checkpoints=None if out is None else Path(out))


def replay_job(
    job: Job, *, step: int | None = None, member: int | None = None, checkpoints: Path | None = None
) -> Replay | None:
    """`replay` of a job: also of a sweep, or over several devices."""
    job = job._replace(held_out=None, held_out_rows=None, validated=frozenset())
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
    among = range(len(job.ends)) if member is None else [here]
    if step is not None:
        states = _states(job, fs, step, CAPACITY)
        last = deque((snapshot(job.program, after) for after, _ in states), maxlen=1)
        kept = last[0] if last else snapshot(job.program, fs)
        took, over = (np.reshape(np.asarray(a), -1) for a in (kept.train.step, kept.diverged >= 0))
        steps = [
            _at(job, kept, i, _name(job, i, member))
            for i in among
            if took[i] == step and not over[i] and step < job.ends[i, -1]
        ]
        if not steps:
            raise ValueError(f"replay: step {step} was not taken; the run ended after {took[among].max()} steps")
        return next((one for one in steps if one.found is not None), steps[0])

    first = _finite(first_state(job))
    kept = snapshot(job.program, fs)
    for every in (LOOK, 1):
        fs = jax.tree.map(jnp.copy, restore(job.program, kept))
        for after, _ in _states(job, fs, total, every):
            bad = np.asarray(fetch(job.program, _spoilt(after, first)))
            bad = bad & np.isin(np.arange(len(bad)), among)
            if bad.any():
                break
            kept = snapshot(job.program, after)
        else:
            return None
    where = int(np.flatnonzero(bad)[0])
    return _at(job, kept, where, _name(job, where, member))


def _name(job: Job, where: int, member: int | None) -> int | None:
    """What the member is called that stands there in the job."""
    return where if member is None and job.program.members is not None else member


def _states(job: Job, fs: FitState, until: int, every: int) -> Iterator[tuple[FitState, np.ndarray]]:
    """The state after each so many steps. It is given on to the next chunk: copy what is kept."""
    done = np.asarray(fetch(job.program, fs.train.step), np.int64)
    last = np.minimum(until, job.ends[:, -1])
    with open_feed(job) as (data, following):
        advance = stepper(job, data)
        while (done < last).any():
            reading = following(done)
            stop = np.minimum(done + every, np.maximum(last, done))
            stop = stop if reading.limit is None else np.minimum(stop, reading.limit)
            fs, _, _ = advance(fs, done, stop, reading.block)
            done = stop
            yield fs, done


def _start(whole: Job, job: Job, member: int | None, checkpoints: Path | None, step: int | None) -> FitState:
    """The state to begin from: that of the last checkpoint that is sound and not beyond the step, or the first."""
    program = job.program
    begun = first_state(job)
    finite = _finite(begun)
    files = checkpoint.files(checkpoints) if checkpoints is not None else []
    _check_same(whole, files)
    for path in reversed(files):
        fs = _saved(whole, path) if step is None or checkpoint.step_of(path) <= step else None
        if fs is not None:
            fs = fs if member is None else jax.tree.map(lambda a: a[member], fs)
            fs = restore(program, fs)
            if not np.asarray(fetch(program, _spoilt(fs, finite))).any():
                begun = fs
                break
    return jax.tree.map(jnp.copy, begun)


def _check_same(job: Job, files: list[Path]) -> None:
    """The checkpoints are of this run."""
    for path in reversed(files):
        with suppress(ValueError):  # damaged
            saved = checkpoint.read_metadata(path)["identity"]
            break
    else:
        return
    me = identity(job.program, job.keys, job.hyper, job.data, sample_of(job), job.rows)
    rows = [row for row in differences(saved, me) if row[0] not in BESIDE]
    if rows:
        raise ValueError(f"replay: {path} is of another run:\n{table(rows)}")


def _saved(job: Job, path: Path) -> FitState | None:
    """The state in a checkpoint, as if nothing were ever validated; None where the file is damaged."""
    for validated in (frozenset[int](), frozenset({0})):
        begun = partial(first_state, job._replace(validated=validated))
        with suppress(ValueError):
            fs, _ = read(path, jax.eval_shape(lambda: snapshot(job.program, begun())))  # noqa: B023
            return fs._replace(best=None, stopped=jnp.zeros_like(fs.stopped))
    return None


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
