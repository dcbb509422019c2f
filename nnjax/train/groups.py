"""Groups of members that are trained one after another, where not all of them fit into memory."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.storage import checkpoint
from nnjax.train.drive import Job
from nnjax.train.program import Program
from nnjax.train.resume import Logs, Resume
from nnjax.train.state import FitState, alive
from nnjax.types import PyTree


def groups(program: Program, group: int | None) -> list[slice]:
    """The members of each group."""
    members = program.members or 1
    size = min(group or members, members)
    return [slice(i, min(i + size, members)) for i in range(0, members, size)]


def part_of(job: Job, members: slice) -> Job:
    """The job of some of the members."""
    return job._replace(
        program=replace(job.program, members=members.stop - members.start),
        keys=job.keys[members],
        hyper=of(job.hyper, members),
        rows=of(job.rows, members),
        held_out_rows=of(job.held_out_rows, members),
        ends=job.ends[members],
        first=members.start,
    )


def of(tree: PyTree, members: Any) -> PyTree:
    """One member's, or some members' part of a tree (members, ...)."""
    return jax.tree.map(lambda a: a[members], tree)


def check_layout(out: str | Path | None, grouped: bool, resume: Resume) -> None:
    """The folder does not hold a run that is grouped otherwise: its checkpoints would go unnoticed.

    Raises:
      FileExistsError: where it does; ValueError where that run was to be resumed.
    """
    if out is None:
        return
    other = [Path(out)] if grouped else sorted(Path(out).glob("group-*"))
    found = next((folder for folder in other if checkpoint.files(folder)), None)
    if found is not None:
        was = "in one program" if grouped else "in groups"
        message = f"{found} holds checkpoints of a run whose members were trained {was}; give the same group=, or"
        raise (ValueError if resume else FileExistsError)(f"{message} choose another out=")


def to_host(tree: PyTree) -> PyTree:
    """Arrays on the host; keys stay what they are."""
    return jax.tree.map(lambda a: a if _is_key(a) else np.asarray(a), tree)


def join_states(parts: Sequence[FitState]) -> FitState:
    """The members of all groups; of several on the host, for they did not fit into the device's memory."""
    if len(parts) == 1:
        return parts[0]

    def join(*leaves: Any) -> Any:
        return jnp.concatenate(leaves) if _is_key(leaves[0]) else np.concatenate(leaves)

    return jax.tree.map(join, *parts)


def join_logs(parts: Sequence[Logs], fs: FitState, ends: np.ndarray) -> Logs:
    """The logs of all groups, as those of one program: a group that stopped early counts as done."""
    if len(parts) == 1:
        return parts[0]
    epochs = sorted({epoch for logs in parts for epoch in logs.epochs})
    live, broken = np.asarray(alive(fs)), np.asarray(fs.diverged) >= 0
    done, scores, first = [], [], 0
    for logs in parts:
        members = slice(first, first := first + len(logs.done))
        done.append(logs.done if live[members].any() else ends[members, -1])
        scores.append(_carried(logs, epochs, broken[members]))
    names = list(next((some for logs in parts for some in logs.scores), {}))
    unknown = {name: [np.full(len(logs.done), np.nan, logs.losses.dtype) for logs in parts] for name in names}
    joined = [
        {n: np.concatenate([s.get(n, u) for s, u in zip(at, unknown[n], strict=True)]) for n in names}
        for at in zip(*scores, strict=True)
    ]
    steps = max(logs.losses.shape[1] for logs in parts)  # of the longest; folds may differ
    losses = [np.pad(a, ((0, 0), (0, steps - a.shape[1])), constant_values=np.nan) for a in (p.losses for p in parts)]
    return Logs(np.concatenate(done), np.concatenate(losses), epochs, joined)


def _carried(logs: Logs, epochs: Sequence[int], broken: np.ndarray) -> list[dict[str, np.ndarray]]:
    """The scores after each of these epochs: after a group's last the same again, for its networks stay as they are."""
    found = dict(zip(logs.epochs, logs.scores, strict=True))
    scores: list[dict[str, np.ndarray]] = []
    for epoch in epochs:
        last = {name: np.where(broken, np.nan, score) for name, score in scores[-1].items()} if scores else {}
        scores.append(found.get(epoch, last))
    return scores


def _is_key(a: Any) -> bool:
    return bool(jnp.issubdtype(a.dtype, jax.dtypes.prng_key))
