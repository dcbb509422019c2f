"""Divide members into groups that are trained one after another, because not all members fit into memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.storage import checkpoint
from nnjax.train.engine.fit_state import FitState, is_running
from nnjax.train.engine.job import Job
from nnjax.train.engine.logs import Logs, mask_scores
from nnjax.train.engine.options import FitOptions
from nnjax.types import PyTree


def group_slices(members: int, group: int | None) -> list[slice]:
    """Return a slice of the members for each group."""
    size = min(group or members, members)
    return [slice(i, min(i + size, members)) for i in range(0, members, size)]


def group_folder(folder: Path, index: int, groups: int) -> Path:
    """Return the folder for the checkpoints of a group."""
    return folder / f"group-{index:03d}" if groups > 1 else folder


def check_layout(options: FitOptions, *, grouped: bool) -> None:
    """Check that the folder has no checkpoints of the other layout (groups or one program), which would be ignored.

    Raises:
      FileExistsError: if the folder has such checkpoints and `resume` is False.
      ValueError: if the folder has such checkpoints and `resume` is set.
    """
    if options.folder is None:
        return
    folders = [options.folder] if grouped else sorted(options.folder.glob("group-*"))
    occupied = next((folder for folder in folders if checkpoint.files(folder)), None)
    if occupied is not None:
        layout = "in one program" if grouped else "in groups"
        message = f"{occupied} contains checkpoints of a run whose members were trained {layout}; pass the same group="
        raise (ValueError if options.resume else FileExistsError)(f"{message}, or choose another out=")


def to_numpy(tree: PyTree) -> PyTree:
    """Copy the arrays of a tree to the host as NumPy arrays, except for random keys."""
    return jax.tree.map(lambda a: a if _is_key(a) else np.asarray(a), tree)


def join_states(states: Sequence[FitState]) -> FitState:
    """Join the states of all groups. With several groups, they stay on the host, because the device is too small."""
    if len(states) == 1:
        return states[0]

    def join(*leaves: Any) -> Any:
        return jnp.concatenate(leaves) if _is_key(leaves[0]) else np.concatenate(leaves)

    return jax.tree.map(join, *states)


def join_logs(job: Job, parts: Sequence[Logs], fs: FitState) -> Logs:
    """Join the logs of all groups, as if one program had written them. A group that stopped early counts as done."""
    if len(parts) == 1:
        return parts[0]
    epochs = sorted({epoch for logs in parts for epoch in logs.epochs})
    running, diverged = np.asarray(is_running(fs)), np.asarray(fs.diverged) >= 0
    done, scores, first = [], [], 0
    for logs in parts:
        members = slice(first, first := first + len(logs.done))
        done.append(logs.done if running[members].any() else job.members.ends[members, -1])
        scores.append(_scores_at(logs, epochs, diverged[members]))
    names = list(next((score for logs in parts for score in logs.scores), {}))
    shapes = {name: score.shape[1:] for logs in parts for scores in logs.scores for name, score in scores.items()}
    float_ = parts[0].steps["loss"].dtype
    missing = {name: [np.full((len(p.done), *shapes[name]), np.nan, float_) for p in parts] for name in names}
    joined = tuple(
        {n: np.concatenate([s.get(n, m) for s, m in zip(at_epoch, missing[n], strict=True)]) for n in names}
        for at_epoch in zip(*scores, strict=True)
    )
    steps = max(logs.steps["loss"].shape[1] for logs in parts)  # folds may differ in length

    def padded(a: np.ndarray) -> np.ndarray:
        return np.pad(a, ((0, 0), (0, steps - a.shape[1])), constant_values=np.nan)

    log = {name: np.concatenate([padded(logs.steps[name]) for logs in parts]) for name in parts[0].steps}
    return Logs(np.concatenate(done), log, tuple(epochs), joined)


def _scores_at(logs: Logs, epochs: Sequence[int], diverged: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Return the scores after each given epoch; after an epoch without validation, they are the last scores."""
    by_epoch = dict(zip(logs.epochs, logs.scores, strict=True))
    scores: list[dict[str, np.ndarray]] = []
    for epoch in epochs:
        last = {name: mask_scores(score, diverged) for name, score in scores[-1].items()} if scores else {}
        scores.append(by_epoch.get(epoch, last))
    return scores


def _is_key(a: Any) -> bool:
    return bool(jnp.issubdtype(a.dtype, jax.dtypes.prng_key))
