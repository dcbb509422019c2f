"""Repeat a step of a run, and find the origin of a NaN or an infinity in it."""

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
from jax.sharding import Mesh

from nnjax import checks
from nnjax.data import Source, n_rows, take_rows
from nnjax.data._transfers import allow_transfers
from nnjax.debug import NonfiniteOrigin, first_nonfinite
from nnjax.storage import checkpoint
from nnjax.train.engine.device_loop import CAPACITY
from nnjax.train.engine.ensemble import Strategy, index_tree
from nnjax.train.engine.errors import format_differences
from nnjax.train.engine.fingerprint import MACHINE, differences, run_fingerprint
from nnjax.train.engine.fit_state import Best, FitState
from nnjax.train.engine.host_loop import chunk_function, open_data
from nnjax.train.engine.job import Job, first_state, state_shapes
from nnjax.train.engine.member_groups import group_folder, group_slices
from nnjax.train.engine.options import FitOptions
from nnjax.train.engine.placement import copy_tree, shard_members, snapshot, to_host
from nnjax.train.engine.resume import read_checkpoint, saved_fingerprint
from nnjax.train.engine.trainable import batch_rows, take_step
from nnjax.train.fit import fit_job
from nnjax.train.folds import Folds
from nnjax.train.load import SavedRun
from nnjax.types import Data, Key, Params, Trainable, TrainState

STRIDE = 64  # steps between two checks of the state; if a check fails, these steps are repeated one by one
IRRELEVANT = (*MACHINE, "batch over", "validation", "metrics", "evaluation")  # fingerprint entries that may differ


class Replay(NamedTuple):
    """A repeated step and the origin of its first non-finite value. `run.step(ts, batch)` takes the step again."""

    run: Trainable
    step: int
    member: int | None
    ts: TrainState  # the state before the step
    batch: Data
    rows: np.ndarray  # (batch,) indices of the batch's examples in the data
    origin: NonfiniteOrigin | None  # origin of the first non-finite value; None if everything is finite

    def __str__(self) -> str:
        return self.describe("the data")

    def __repr__(self) -> str:
        """Return a summary without the state and the batch."""
        return f"Replay({self})"

    def describe(self, data: str) -> str:
        """Return the same text as `str`, but use `data` as the name of the data."""
        where = f"step {self.step}" + ("" if self.member is None else f", member {self.member}")
        if self.origin is None:
            return f"{where}: everything is finite"
        rows = [int(self.rows[i]) for i in self.origin.rows if i < len(self.rows)]
        return f"{where}: {self.origin}" + (f"; rows {', '.join(map(str, rows[:8]))} of {data}" if rows else "")


@allow_transfers
def replay(
    run: Trainable,
    data: Data | Source | tuple[Any, ...] | None = None,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    key: Key | None = None,
    members: int | None = None,
    strategy: Strategy | None = None,
    mesh: Mesh | None = None,
    group: int | None = None,
    folds: Folds | None = None,
    start: Params | TrainState | Best | SavedRun | None = None,
    step: int | None = None,
    member: int | None = None,
    out: str | Path | None = None,
) -> Replay | None:
    """Repeat one training step of `fit`, and find the origin of a NaN or an infinity in it.

    First, the run is repeated up to the state before the step. The step is then evaluated one primitive at a time,
    until one turns finite inputs into a non-finite value. The result names the step, the member, the place (layer, loss
    or update), the primitive, and the rows of the data. Validation and early stopping are ignored.

    Args:
      run: see `fit`; pass the same arguments to get the same run.
      data: see `fit`.
      epochs: see `fit`; later steps are not examined.
      steps: see `fit`.
      key: see `fit`.
      members: see `fit`.
      strategy: see `fit`.
      mesh: see `fit`.
      group: see `fit`; groups are examined one after another, or only the group of `member`.
      folds: see `fit`.
      start: see `fit`.
      step: the step to repeat, counted from 0; None means the first step that makes the loss, the parameters, or the
        state of the network or the optimizer non-finite.
      member: the member to examine; None means the first member with such a step. With strategy "map", only this member
        is trained again; the result is bitwise identical.
      out: folder with checkpoints of the run. The replay starts from the latest checkpoint before the step.

    Returns:
      `Replay(run, step, member, ts, batch, rows, origin)`; `run.step(ts, batch)` repeats the step. If `step` is passed
      and is finite for all members, the replay is of the first member that took it, and `origin` is None. If `step` is
      None and everything stays finite, the result is None.

    Raises:
      ValueError: if the data are a generator of batches, if the run does not have the member, if the step was not
        taken, or if `out` contains a different run; also as raised by `fit`.

    >>> net = nn.serial(nn.dense(8), jnp.exp, nn.dense(1))
    >>> run = train.Run(net, losses.squared_error, optim.sgd(1.0), batch_size=4)
    >>> x = jnp.arange(16.0)[:, None]
    >>> print(train.replay(run, (x, x), epochs=2))
    step 1: ...
    """
    options = FitOptions(epochs=epochs, steps=steps, group=group, out=out)
    job = fit_job(run, data, options, key=key, members=members, strategy=strategy, mesh=mesh, folds=folds, start=start)
    return replay_job(job, options, step=step, member=member)


def replay_job(job: Job, options: FitOptions, *, step: int | None = None, member: int | None = None) -> Replay | None:
    """Replay a step of the job that `fit` or `sweep` trains; see `replay`."""
    if isinstance(job.data, Source) and job.data.in_order:
        raise ValueError(
            "replay: a generator of batches can be read only once, so its steps cannot be repeated; see data.source"
        )
    members = job.ensemble.members
    for name, value in (("member", member), ("step", step)):
        if value is not None:
            checks.positive_int("replay", name, value, 0)
    if member is not None and not 0 <= member < members:
        raise ValueError(f"replay: member must be in 0 … {members - 1}, got {member}")
    if step is not None and not 0 <= step < job.total_steps:
        raise ValueError(f"replay: step must be in 0 … {job.total_steps - 1}, the steps of the run, got {step}")
    job = job._replace(held_out=None, members=job.members._replace(held_out_rows=None))
    slices = group_slices(members, options.group)
    groups = [
        _Group(
            job=job if len(slices) == 1 else job.select(part),
            member=None if member is None else member - part.start,
            folder=options.folder and group_folder(options.folder, i, len(slices)),
        )
        for i, part in enumerate(slices)
        if member is None or part.start <= member < part.stop
    ]
    if step is None and job.total_steps == 0:
        return None
    if step is None:
        first = None
        for group in groups:  # in later groups, search only the steps before `first`
            first = _first_bad_step(group, job.total_steps if first is None else first.step) or first
        return first
    finite, most = None, 0
    for group in groups:
        steps_taken, replays = _member_replays(group, step)
        for candidate in replays:
            if candidate.origin is not None:
                return candidate
            finite = finite or candidate
        most = max(most, steps_taken)
    if finite is None:
        raise ValueError(f"replay: step {step} was not taken; the run ended after {most} steps")
    return finite


class _Group(NamedTuple):
    """A group of members that are trained in one program, and the member to examine."""

    job: Job
    member: int | None  # index of the requested member in the group; None means all members
    folder: Path | None  # folder of the group's checkpoints

    @property
    def alone(self) -> bool:
        """Return True if the member to examine can be trained without the rest of its group."""
        return self.member is not None and self.job.ensemble.strategy == "map"

    def run(self) -> tuple[Job, list[int]]:
        """Return the job to run, and the indices of the members to examine."""
        if self.member is None:
            return self.job, list(range(self.job.ensemble.members))
        if not self.alone:
            return self.job, [self.member]
        alone = self.job.select(slice(self.member, self.member + 1))
        return alone._replace(ensemble=replace(alone.ensemble, mesh=None)), [0]


def _first_bad_step(group: _Group, until: int) -> Replay | None:
    """Return the replay of the first step before `until` that produces a non-finite value, or None."""
    job, indices = group.run()
    fs = _start(group, job, step=None)
    finite = finite_leaves(first_state(job, validated=False))
    last = snapshot(job.ensemble, fs)
    for stride in (STRIDE, 1):
        fs = copy_tree(shard_members(job.ensemble, last))
        for after, _ in _states(job, fs, until, stride):
            bad = np.asarray(to_host(job.ensemble, is_bad(after, finite)))
            bad = bad & np.isin(np.arange(len(bad)), indices)
            if bad.any():
                break
            last = snapshot(job.ensemble, after)
        else:
            return None
    return make_replay(job, last, int(np.flatnonzero(bad)[0]))


def _member_replays(group: _Group, step: int) -> tuple[int, Iterator[Replay]]:
    """Return the number of steps taken, and a replay of the given step for each member that took it."""
    job, indices = group.run()
    fs = _start(group, job, step=step)
    states = _states(job, fs, step, CAPACITY)
    last = deque((snapshot(job.ensemble, after) for after, _ in states), maxlen=1)
    state = last[0] if last else snapshot(job.ensemble, fs)
    steps_taken, diverged = np.asarray(state.train.step), np.asarray(state.diverged >= 0)
    ready = [i for i in indices if steps_taken[i] == step and not diverged[i] and step < job.members.ends[i, -1]]
    return int(steps_taken[indices].max()), (make_replay(job, state, i) for i in ready)


def _start(group: _Group, job: Job, *, step: int | None) -> FitState:
    """Return the state in the latest finite checkpoint up to the step, or the initial state if there is none."""
    initial = first_state(job, validated=False)
    finite = finite_leaves(initial)
    files = checkpoint.files(group.folder) if group.folder is not None else []
    _check_same_run(group.job, files)
    for path in reversed(files):
        fs = _saved_state(group.job, path) if step is None or checkpoint.step_of(path) <= step else None
        if fs is not None:
            if group.alone and group.member is not None:
                fs = index_tree(fs, slice(group.member, group.member + 1))
            fs = shard_members(job.ensemble, fs)
            if not np.asarray(to_host(job.ensemble, is_bad(fs, finite))).any():
                return copy_tree(fs)
    return copy_tree(initial)


def _check_same_run(job: Job, files: list[Path]) -> None:
    saved = saved_fingerprint(files)
    if saved is None:
        return
    path, fingerprint = saved
    rows = [row for row in differences(fingerprint, run_fingerprint(job)) if row[0] not in IRRELEVANT]
    if rows:
        raise ValueError(f"replay: {path} is from a different run:\n{format_differences(rows)}")


def _saved_state(job: Job, path: Path) -> FitState | None:
    """Return the state in a checkpoint, ignoring best networks and early stopping, or None if the file is damaged."""
    for validated in (False, True):
        with suppress(ValueError):
            fs, _ = read_checkpoint(path, state_shapes(job, validated=validated))
            return fs._replace(best=None, stopped=jnp.zeros_like(fs.stopped))
    return None


def _states(job: Job, fs: FitState, until: int, stride: int) -> Iterator[tuple[FitState, np.ndarray]]:
    """Yield the state and the steps taken (members,) after each stride. A state is valid only until the next stride."""
    done = np.asarray(to_host(job.ensemble, fs.train.step), np.int64)
    last = np.minimum(until, job.members.ends[:, -1])
    with open_data(job, FitOptions(epochs=0)) as (data, next_feed):
        advance = chunk_function(job, data)
        while (done < last).any():
            feed = next_feed(done)
            stop = np.minimum(done + stride, np.maximum(last, done))
            stop = stop if feed.limit is None else np.minimum(stop, feed.limit)
            fs, _, _ = advance(fs, done, stop, feed.block)
            done = stop
            yield fs, done


def make_replay(job: Job, fs: FitState, i: int) -> Replay:
    """Return the replay of the step that member i takes from a state."""
    ts, run = index_tree(fs.train, i), job.ensemble.run(index_tree(job.members.hyper, i))
    member_rows = job.members.rows
    size = n_rows(job.data) if member_rows is None else int(member_rows.sizes[i])
    rows = np.arange(size) if run.batch_size is None else np.asarray(batch_rows(run, ts.key, ts.step, size, 1)[0])
    rows = rows if member_rows is None else np.asarray(member_rows.table[i])[rows]
    batch = take_rows(job.data, rows)
    origin = first_nonfinite(partial(take_step, run), ts, batch, names=("state", "batch"))
    member = job.first + i if job.numbered else None
    return Replay(run, int(ts.step), member, ts=ts, batch=batch, rows=rows, origin=origin)


@jax.jit
def finite_leaves(fs: FitState) -> list[Array]:
    """Return masks of the finite values in a training state. Optimizers may start with infinities in their state."""
    return [jnp.isfinite(leaf) for leaf in _floating_leaves(fs.train)]


@jax.jit
def is_bad(fs: FitState, finite: list[Array]) -> Array:
    """Return a mask (members,) that is True if the loss, or a value that was finite at the start, is non-finite."""
    bad = fs.diverged >= 0
    for leaf, at_first in zip(_floating_leaves(fs.train), finite, strict=True):
        bad |= (at_first & ~jnp.isfinite(leaf)).any(tuple(range(1, leaf.ndim)))
    return bad


def _floating_leaves(ts: TrainState) -> list[Array]:
    leaves = jax.tree.leaves((ts.params, ts.state, ts.opt_state))
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
