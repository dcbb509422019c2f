"""Checkpoints of a `fit`: what is in them, and how a run goes on from one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.storage import background_writer as background
from nnjax.storage import checkpoint
from nnjax.train.engine.ensemble import Program, snapshot
from nnjax.train.engine.fingerprint import Identity, differences, table
from nnjax.train.engine.fit_state import FitState

Resume = bool | Literal["anyway"]


class Logs(NamedTuple):
    """What was measured so far; a resumed run has the whole history."""

    done: np.ndarray  # (members,) steps, those included that a frozen member did not take
    losses: np.ndarray  # (members, steps), NaN for steps that were not taken
    epochs: list[int]  # after which was validated, from 0
    scores: list[dict[str, np.ndarray]]  # of each validation, (members,)


class Saving(NamedTuple):
    """Where and when checkpoints are written."""

    folder: Path
    every: float  # seconds
    keep: int
    resume: Resume


class Save(Protocol):
    """Hands a checkpoint to the thread that writes it; False where that is still at the one before."""

    def __call__(self, fs: FitState, logs: Logs, *, wait: bool) -> bool: ...


@contextmanager
def saver(saving: Saving | None, program: Program, me: Identity) -> Iterator[Save]:
    """Checkpoints on the side: the state is copied on the device, the rest is done by a thread."""
    if saving is None:
        yield lambda fs, logs, *, wait: False
        return
    with background.checkpoint_writer(saving.folder, saving.keep, write=jax.process_index() == 0) as write:

        def save(fs: FitState, logs: Logs, *, wait: bool) -> bool:
            tree, metadata = content(snapshot(program, fs), logs)
            losses = logs.scores[-1]["loss"] if logs.scores else np.zeros(0)
            losses = losses[~np.isnan(losses)]
            score = float(losses.mean()) if losses.size else None
            return write(int(logs.done.max()), tree, {"identity": me, **metadata}, score, wait=wait)

        yield save


def content(fs: FitState, logs: Logs) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tree and the metadata of a checkpoint."""
    names = [name for name in logs.scores[-1] if all(name in scores for scores in logs.scores)] if logs.scores else []
    tree = {
        "fit": fs,
        "losses": logs.losses[:, : int(logs.done.max())].copy(),
        "scores": {name: np.stack([scores[name] for scores in logs.scores]) for name in names},
    }
    return tree, {"done": logs.done.tolist(), "epochs": list(logs.epochs), "scores": names}


def load(saving: Saving, me: Identity, fs: FitState, logs: Logs) -> tuple[FitState, Logs] | None:
    """The state of the last good checkpoint and the logs up to it; None where there is none yet.

    Args:
      saving: where from.
      me: what the run is.
      fs: the state in its structure, arrays or shapes (members, ...).
      logs: those of the start, whose losses have room for all steps.

    Raises:
      FileExistsError: where there are checkpoints and the run is not to be resumed.
      ValueError: where the run differs from the saved one, with all that differs; where every file is damaged.
    """
    files = checkpoint.files(saving.folder)
    if not files:
        return None
    if not saving.resume:
        raise FileExistsError(
            f"{saving.folder} holds checkpoints of a run, the last {files[-1].name}; go on with resume=True, "
            "or choose another out="
        )

    _compare(saving, me, files, fs)
    _, tree, metadata = checkpoint.latest(saving.folder, _like(fs))
    fs, saved = _unpack(tree, metadata)
    losses = np.full((len(saved.done), max(logs.losses.shape[1], saved.losses.shape[1])), np.nan, logs.losses.dtype)
    losses[:, : saved.losses.shape[1]] = saved.losses
    return fs, saved._replace(losses=losses)


def read(path: Path, fs: FitState) -> tuple[FitState, Logs]:
    """The state and the logs in a checkpoint, in the structure of `fs`.

    Raises:
      ValueError: for a damaged file, or one of another network.
    """
    return _unpack(*checkpoint.load(path, _like(fs)))


def _like(fs: FitState) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The tree of a checkpoint, from its metadata."""

    def like(metadata: dict[str, Any]) -> dict[str, Any]:
        members, steps, validations = len(metadata["done"]), max(metadata["done"]), len(metadata["epochs"])
        float_ = jnp.result_type(float)
        scores = {name: jax.ShapeDtypeStruct((validations, members), float_) for name in metadata["scores"]}
        return {"fit": fs, "losses": jax.ShapeDtypeStruct((members, steps), float_), "scores": scores}

    return like


def _unpack(tree: dict[str, Any], metadata: dict[str, Any]) -> tuple[FitState, Logs]:
    names, epochs = metadata["scores"], list(metadata["epochs"])
    scores = [{name: tree["scores"][name][i] for name in names} for i in range(len(epochs))]
    return tree["fit"], Logs(np.asarray(metadata["done"]), tree["losses"], epochs, scores)


def _compare(saving: Saving, me: Identity, files: list[Path], fs: FitState) -> None:
    """The saved run is this one."""
    saved = None
    for path in files:  # the last one that can be read
        with suppress(ValueError):
            saved = checkpoint.read_metadata(path)["identity"]
    rows = [] if saved is None else differences(saved, me)
    if not rows or saving.resume == "anyway":
        return
    remedy = "resume='anyway' goes on all the same; or choose another out="
    try:
        read(files[-1], fs)
    except ValueError as error:  # which arrays differ, where they do: the state does not fit at all
        remedy = f"{error}\nchoose another out="
    raise ValueError(
        f"{saving.folder}: the run differs from the saved one, exact resume is impossible:\n{table(rows)}\n{remedy}"
    )
