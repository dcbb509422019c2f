"""What a replay runs, and the state that it begins from: the last in a checkpoint that is sound, or the first."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nnjax.storage import checkpoint
from nnjax.train.drive import Job, first_state, sample_of
from nnjax.train.identity import MACHINE, differences, identity, table
from nnjax.train.program import fetch, restore, snapshot
from nnjax.train.resume import read
from nnjax.train.state import FitState
from nnjax.types import TrainState

BESIDE = (*MACHINE, "batch over", "validation", "metrics")  # what a step may be replayed without


class Part(NamedTuple):
    """What is replayed: all members, or a group of them."""

    job: Job
    member: int | None  # the one that is asked for, counted from the first of the group
    checkpoints: Path | None

    @property
    def alone(self) -> bool:
        """Whether the member is run alone."""
        return self.member is not None and self.job.program.strategy == "map"

    def runs(self) -> tuple[Job, list[int]]:
        """The job to run, and the members in it to look at."""
        if self.member is None:
            return self.job, list(range(len(self.job.ends)))
        return (_alone(self.job, self.member), [0]) if self.alone else (self.job, [self.member])

    def name(self, where: int) -> int | None:
        """What the member is called that stands there in the job that runs; None in a lone run."""
        if self.member is None and self.job.program.members is None:
            return None
        return self.job.first + (where if self.member is None else self.member)


def start(part: Part, job: Job, step: int | None) -> FitState:
    """The state to begin from: that of the last checkpoint that is sound and not beyond the step, or the first."""
    program = job.program
    begun = first_state(job)
    finite = finite_leaves(begun)
    files = checkpoint.files(part.checkpoints) if part.checkpoints is not None else []
    _check_same(part.job, files)
    for path in reversed(files):
        fs = _saved(part.job, path) if step is None or checkpoint.step_of(path) <= step else None
        if fs is not None:
            fs = jax.tree.map(lambda a: a[part.member], fs) if part.alone else fs
            fs = restore(program, fs)
            if not np.asarray(fetch(program, spoilt(fs, finite))).any():
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
def finite_leaves(fs: FitState) -> list[Array]:
    """Where the leaves of a training state are finite; an optimizer's may start with infinities."""
    return [jnp.isfinite(leaf) for leaf in _floating(fs.train)]


@jax.jit
def spoilt(fs: FitState, first: list[Array]) -> Array:
    """Whether the loss was not finite, or a value is not that was so at first; of each member."""
    found = fs.diverged >= 0
    for leaf, finite in zip(_floating(fs.train), first, strict=True):
        found |= (finite & ~jnp.isfinite(leaf)).any(tuple(range(found.ndim, leaf.ndim)))
    return found


def _floating(ts: TrainState) -> list[Array]:
    leaves = jax.tree.leaves((ts.params, ts.state, ts.opt_state))
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
