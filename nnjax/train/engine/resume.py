"""Write the checkpoints of a run, and continue a run from its latest checkpoint."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.storage import background_writer, checkpoint
from nnjax.storage.json_file import check_kind
from nnjax.storage.paths import write_elsewhere
from nnjax.train.engine.errors import RunMismatchError
from nnjax.train.engine.fingerprint import Fingerprint, differences, run_fingerprint
from nnjax.train.engine.fit_state import FitState
from nnjax.train.engine.job import Job, first_state, state_shapes
from nnjax.train.engine.logs import Logs, no_logs
from nnjax.train.engine.options import FitOptions
from nnjax.train.engine.placement import copy_tree, shard_members, snapshot
from nnjax.types import PyTree


class Metadata(TypedDict):
    """The metadata of a checkpoint."""

    step: int
    score: float | None  # the mean validation loss
    fingerprint: Fingerprint
    done: list[int]  # as in `Logs`
    epochs: list[int]  # as in `Logs`
    log: list[str]  # the names of the values logged for each step
    scores: dict[str, list[int]]  # the shape of each score
    numbered: bool  # False for a single run


class Save(Protocol):
    """Pass a checkpoint to the thread that writes it; with `wait=True`, wait until it is on disk.

    Return the folder that contains the checkpoint. Return None if the thread is still writing the previous one, or if
    this process does not write checkpoints.
    """

    def __call__(self, fs: FitState, logs: Logs, *, wait: bool) -> Path | None: ...


@contextmanager
def resumable(job: Job, options: FitOptions) -> Iterator[tuple[tuple[FitState, Logs], Save]]:
    """Yield the state and logs to start from, new or from a checkpoint, and a function that saves checkpoints.

    The folder is locked first, so that no other process deletes the files that are read here.
    """

    def start() -> tuple[FitState, Logs]:
        return copy_tree(first_state(job, validated=job.held_out is not None)), no_logs(len(job.members.ends))

    if options.folder is None:
        yield start(), lambda fs, logs, *, wait: None
        return
    folder = options.folder
    fingerprint = run_fingerprint(job)
    with background_writer.checkpoint_writer(folder, options.keep, write=jax.process_index() == 0) as write:

        def save(fs: FitState, logs: Logs, *, wait: bool) -> Path | None:
            tree, metadata = _pack(snapshot(job.ensemble, fs), logs)
            losses = logs.scores[-1]["loss"] if logs.scores else np.zeros(0)
            losses = losses[~np.isnan(losses)]
            score = float(losses.mean()) if losses.size else None
            step = int(logs.done.max())
            metadata = {"fingerprint": fingerprint, "numbered": job.numbered, **metadata}
            try:
                return folder if write(step, tree, metadata, score, wait=wait) else None
            except OSError as error:
                return _save_elsewhere(folder, tree, {**metadata, "step": step, "score": score}, error)

        saved = _load(job, options, fingerprint, folder)
        if saved is None:
            yield start(), save
        else:
            fs, logs = saved
            yield (copy_tree(shard_members(job.ensemble, fs)), logs), save


def _save_elsewhere(folder: Path, tree: PyTree, metadata: dict[str, Any], error: OSError) -> Path:
    """Write a checkpoint to a new folder if the run's folder was deleted, is full or is not writable.

    Raises:
      OSError: the original error, if the new folder is not writable either.

    Warns:
      RuntimeWarning: always; the message names the new folder.
    """
    group = folder.name.startswith("group-")  # see `member_groups.group_folder`

    def write(new_folder: Path) -> None:
        checkpoint.save(
            checkpoint.step_path(new_folder / folder.name if group else new_folder, metadata["step"]), tree, metadata
        )

    try:
        new_folder, _ = write_elsewhere(folder.parent if group else folder, write)
    except OSError:
        raise error from None
    checks.warn(
        f"fit: {folder} cannot be written to ({error}), so the checkpoint of step {metadata['step']} is saved in "
        f"{new_folder}, from which resume=True continues",
        RuntimeWarning,
    )
    return new_folder


def read_checkpoint(path: Path, like: FitState) -> tuple[FitState, Logs]:
    """Return the state and the logs in a checkpoint; the state has the same structure as `like`.

    Raises:
      ValueError: if the file is damaged, or contains a different network.
    """
    return _unpack(*checkpoint.load(path, _like(like)))


def saved_fingerprint(files: list[Path]) -> tuple[Path, Fingerprint] | None:
    """Return the path of the newest checkpoint with readable metadata, and its fingerprint; None if there is none."""
    for path in reversed(files):
        with suppress(ValueError, OSError):
            return path, _check_metadata(checkpoint.read_metadata(path))["fingerprint"]
    return None


def _check_metadata(content: dict[str, Any]) -> Metadata:
    """Check the metadata of a checkpoint, and return them.

    Raises:
      ValueError: if the metadata were not written by `fit`.
    """
    try:
        metadata: Metadata = check_kind("its metadata", content, Metadata)
        if not metadata["done"] or min(metadata["done"]) < 0:
            raise ValueError(f"its metadata.done must be numbers of steps, got {metadata['done']}")
    except ValueError as error:
        raise ValueError(f"a checkpoint was not written by fit, or by a different version: {error}") from None
    return metadata


def _load(job: Job, options: FitOptions, fingerprint: Fingerprint, folder: Path) -> tuple[FitState, Logs] | None:
    """Return the state and logs from the latest intact checkpoint, or None if the folder has no checkpoint."""
    files = checkpoint.files(folder)
    if not files:
        return None
    if not options.resume:
        raise FileExistsError(
            f"{folder} contains checkpoints of a run up to {files[-1].name}; continue with resume=True, "
            "or choose another out="
        )
    like = state_shapes(job, validated=job.held_out is not None)
    saved = saved_fingerprint(files)
    rows = [] if saved is None else differences(saved[1], fingerprint)
    if rows and options.resume != "anyway":
        raise RunMismatchError(folder, rows, reason=_misfit(files[-1], like))

    _, tree, metadata = checkpoint.latest(folder, _like(like))
    fs, logs = _unpack(tree, metadata)
    ends = job.members.ends[:, -1] if job.members.ends.size else np.zeros(len(logs.done), int)
    if (logs.done > ends).any():
        raise ValueError(
            f"fit: epochs={job.epochs:g} is {ends.max()} steps, but the run saved in {folder} has already taken "
            f"{logs.done.max()} steps ({logs.done.max() / job.epoch_steps:g} epochs); resume with at least as many "
            "epochs, or choose another out="
        )
    return fs, logs


def _misfit(path: Path, like: FitState) -> str | None:
    """Describe how the structure of a checkpoint differs from `like`; return None if it does not."""
    try:
        read_checkpoint(path, like)
    except ValueError as error:
        return str(error)
    return None


def _pack(fs: FitState, logs: Logs) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tree and the metadata to save in a checkpoint."""
    names = [name for name in logs.scores[-1] if all(name in scores for scores in logs.scores)] if logs.scores else []
    scores = {name: np.stack([scores[name] for scores in logs.scores]) for name in names}
    steps = {name: values[:, : int(logs.done.max())].copy() for name, values in logs.steps.items()}
    shapes = {name: list(values.shape[2:]) for name, values in scores.items()}
    metadata = {"done": logs.done.tolist(), "epochs": list(logs.epochs), "log": list(steps), "scores": shapes}
    return {"fit": fs, "steps": steps, "scores": scores}, metadata


def _unpack(tree: dict[str, Any], metadata: dict[str, Any]) -> tuple[FitState, Logs]:
    names, epochs = metadata["scores"], tuple(metadata["epochs"])
    scores = tuple({name: tree["scores"][name][i] for name in names} for i in range(len(epochs)))
    return tree["fit"], Logs(np.asarray(metadata["done"]), tree["steps"], epochs, scores)


def _like(fs: FitState) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a function from a checkpoint's metadata to the structure of its tree."""

    def like(metadata: dict[str, Any]) -> dict[str, Any]:
        _check_metadata(metadata)
        members, steps, validations = len(metadata["done"]), max(metadata["done"]), len(metadata["epochs"])
        float_ = jnp.result_type(float)
        scores = {
            name: jax.ShapeDtypeStruct((validations, members, *shape), float_)
            for name, shape in metadata["scores"].items()
        }
        log = {name: jax.ShapeDtypeStruct((members, steps), float_) for name in metadata["log"]}
        return {"fit": fs, "steps": log, "scores": scores}

    return like
