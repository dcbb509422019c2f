"""A step of a run again: the state before it, its batch, and where in it a NaN or an infinity arose."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nnjax import checks
from nnjax.data.source import Source
from nnjax.debug import NonfiniteOrigin, first_nonfinite
from nnjax.train.engine.device_loop import CAPACITY
from nnjax.train.engine.ensemble import Program, Strategy, fetch, restore, snapshot
from nnjax.train.engine.fit_state import FitState
from nnjax.train.engine.host_loop import Job, first_state, open_feed, stepper
from nnjax.train.engine.job import make_job
from nnjax.train.engine.member_groups import groups, part_of
from nnjax.train.fit import member_keys
from nnjax.train.folds import Folds
from nnjax.train.part import Part, finite_leaves, spoilt, start
from nnjax.train.run import Run, length, take
from nnjax.types import Data, Key, TrainState

LOOK = 64  # steps between looks at the state; only the last so many are then gone through one by one


class Replay(NamedTuple):
    """A step, ready to be looked at: `run.step(ts, batch)` is the step itself."""

    run: Run
    step: int
    member: int | None
    ts: TrainState  # before the step
    batch: Data
    rows: np.ndarray  # (batch,) of the data
    found: NonfiniteOrigin | None  # where a value that is not finite arose; None where the step has none

    def __str__(self) -> str:
        return self.words("the data")

    def words(self, data: str) -> str:
        """The same as `str`, with another name for what the rows are rows of."""
        where = f"step {self.step}" + ("" if self.member is None else f", member {self.member}")
        if self.found is None:
            return f"{where}: everything is finite"
        rows = [int(self.rows[i]) for i in self.found.rows if i < len(self.rows)]
        return f"{where}: {self.found}" + (f"; rows {', '.join(map(str, rows[:8]))} of {data}" if rows else "")


def replay(
    run: Run,
    data: Data | Source | tuple[Any, ...],
    *,
    epochs: float,
    key: Key | None = None,
    members: int | None = None,
    strategy: Strategy = "map",
    mesh: Mesh | None = None,
    group: int | None = None,
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
      mesh: see `fit`.
      group: see `fit`; one group is looked at after another, or that of `member` alone.
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
    program = Program(run, members, strategy, mesh)
    job = make_job(program, None, keys, data, epochs=epochs, folds=folds)
    return replay_job(job, group=group, step=step, member=member, checkpoints=None if out is None else Path(out))


def replay_job(
    job: Job,
    *,
    group: int | None = None,
    step: int | None = None,
    member: int | None = None,
    checkpoints: Path | None = None,
) -> Replay | None:
    """`replay` of a job: also of a sweep."""
    members = len(job.ends)
    if group is not None:
        checks.positive_int("replay", "group", group)
    if member is not None and not 0 <= member < members:
        raise ValueError(f"replay: member must be in 0 … {members - 1}, got {member}")
    total = int(job.ends[:, -1].max()) if job.ends.size else 0
    if step is not None and not 0 <= step < total:
        raise ValueError(f"replay: step must be in 0 … {total - 1}, the steps of the run, got {step}")
    if job.program.members is None:  # a lone run has one member, and no axis for it
        member = None
    job = job._replace(held_out=None, held_out_rows=None, validated=frozenset())
    sizes = groups(job.program, group)
    folders = [f"group-{i:03d}" if len(sizes) > 1 else "" for i in range(len(sizes))]
    parts = [
        Part(
            job if len(sizes) == 1 else part_of(job, these),
            None if member is None else member - these.start,
            None if checkpoints is None else checkpoints / name,
        )
        for these, name in zip(sizes, folders, strict=True)
        if member is None or these.start <= member < these.stop
    ]
    if step is None:
        found = None
        for part in parts:  # of later groups only earlier steps
            found = _first(part, total if found is None else found.step) or found
        return found
    finite, most = None, 0
    for part in parts:
        took, replays = _at_step(part, step)
        for one in replays:
            if one.found is not None:
                return one
            finite = finite or one
        most = max(most, took)
    if finite is None:
        raise ValueError(f"replay: step {step} was not taken; the run ended after {most} steps")
    return finite


def _at_step(part: Part, step: int) -> tuple[int, Iterator[Replay]]:
    """How many steps were taken, and the step of each member that took it."""
    job, among = part.runs()
    fs = start(part, job, step)
    states = _states(job, fs, step, CAPACITY)
    last = deque((snapshot(job.program, after) for after, _ in states), maxlen=1)
    kept = last[0] if last else snapshot(job.program, fs)
    took, over = (np.reshape(np.asarray(a), -1) for a in (kept.train.step, kept.diverged >= 0))
    there = [i for i in among if took[i] == step and not over[i] and step < job.ends[i, -1]]
    return int(took[among].max()), (_at(job, kept, i, part.name(i)) for i in there)


def _first(part: Part, until: int) -> Replay | None:
    """The first step before `until` after which something is not finite."""
    job, among = part.runs()
    fs = start(part, job, None)
    first = finite_leaves(first_state(job))
    kept = snapshot(job.program, fs)
    for every in (LOOK, 1):
        fs = jax.tree.map(jnp.copy, restore(job.program, kept))
        for after, _ in _states(job, fs, until, every):
            bad = np.asarray(fetch(job.program, spoilt(after, first)))
            bad = bad & np.isin(np.arange(len(bad)), among)
            if bad.any():
                break
            kept = snapshot(job.program, after)
        else:
            return None
    where = int(np.flatnonzero(bad)[0])
    return _at(job, kept, where, part.name(where))


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
