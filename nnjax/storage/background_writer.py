"""Checkpoints written beside the run, on a thread of their own: the host goes on feeding the device meanwhile."""

import math
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from nnjax import checks
from nnjax.storage import checkpoint
from nnjax.storage.lock import locked
from nnjax.types import PyTree

Scores = dict[int, float]  # of the checkpoints that are whole, by step; infinite where there is none


class Save(Protocol):
    """`(step, tree, metadata, score=None, wait=False)`, and whether that will be written."""

    def __call__(
        self, step: int, tree: PyTree, metadata: dict[str, Any], score: Any = None, *, wait: bool = False
    ) -> bool: ...


@contextmanager
def saver(folder: Path, keep: int = 3, *, write: bool = True) -> Iterator[Save]:
    """A function that saves checkpoints to a folder while the run goes on.

    `save(step, tree, metadata, score=None)` returns at once: transfer to the host, hashing and writing happen on a
    thread. While one checkpoint is being written it takes no other and returns False; with `wait=True` it waits for
    the one before and for its own. The arrays must stay as they are until they are written: donate none of them.

    The metadata gain `step` and `score`. After each checkpoint, once it is on the disk, those are deleted that are
    neither of the last `keep` nor the one of the lowest score. Damaged ones, and those of later steps that a run left
    which was resumed from further back, are not counted among the last and not deleted.

    Args:
      folder: made if need be. One process writes to it at a time: it is locked.
      keep: how many of the last ones stay.
      write: False for all processes but one; there `save` does nothing and returns False.

    Raises:
      BlockingIOError: where another process writes to the folder.
      OSError: of the last write, or one with `wait=True`, that failed, with the path and the number of bytes. The
        checkpoints before are whole.

    Warns:
      RuntimeWarning: of another write that failed, at the next `save`, which tries again: a full disk may get room.

    >>> from pathlib import Path
    >>> from nnjax.storage import checkpoint
    >>> from nnjax.storage.background_writer import saver
    >>> with saver(Path("checkpoints"), keep=2) as save:
    ...     for step in (10, 20, 30):
    ...         _ = save(step, {"w": jnp.full(3, step)}, {}, score=1 / step, wait=True)
    >>> [path.name for path in checkpoint.files(Path("checkpoints"))]
    ['step-000000000020.safetensors', 'step-000000000030.safetensors']
    """
    checks.positive_int("saver", "keep", keep)
    if not write:
        yield lambda step, tree, metadata, score=None, *, wait=False: False
        return
    folder.mkdir(parents=True, exist_ok=True)
    pending: Future[None] | None = None
    whole: Scores | None = None

    def work(step: int, tree: PyTree, metadata: dict[str, Any], score: Any) -> None:
        nonlocal whole
        _remove_leftovers(folder)  # first: a full disk needs the room
        whole = _look_through(folder) if whole is None else whole
        number = None if score is None or math.isnan(float(score)) else float(score)
        checkpoint.save(checkpoint.step_path(folder, step), tree, {**metadata, "step": step, "score": number})
        whole[step] = math.inf if number is None else number
        _prune(folder, step, keep, whole)

    def finish(last: bool) -> None:
        nonlocal pending
        if pending is None:
            return
        done, pending = pending, None
        try:
            done.result()
        except OSError as error:
            if last:
                raise
            why = " ".join([str(error), *getattr(error, "__notes__", [])])
            warnings.warn(
                f"a checkpoint was not written: {why}; the run goes on and saves again", RuntimeWarning, stacklevel=3
            )

    def save(step: int, tree: PyTree, metadata: dict[str, Any], score: Any = None, *, wait: bool = False) -> bool:
        nonlocal pending
        if pending is not None and not pending.done() and not wait:
            return False
        finish(last=False)
        pending = thread.submit(work, int(step), tree, metadata, score)
        if wait:
            finish(last=True)
        return True

    # The end of the thread waits for the last write, after Ctrl-C too
    with locked(folder), ThreadPoolExecutor(1, "checkpoints") as thread:
        try:
            yield save
        except BaseException as error:
            failed = pending and pending.exception()
            if failed:
                error.add_note(f"and the last checkpoint was not written: {failed!r}")
            raise
        finish(last=True)


def _look_through(folder: Path) -> Scores:
    """The scores of the checkpoints that are there and whole."""
    found = {}
    for path in checkpoint.files(folder):
        try:
            score = checkpoint.verify(path).get("score")
        except (ValueError, OSError):
            continue
        found[checkpoint.step_of(path)] = math.inf if score is None else score
    return found


def _prune(folder: Path, step: int, keep: int, whole: Scores) -> None:
    """Delete what is neither of the last `keep` up to `step`, nor the best, nor of later steps."""
    best = min(whole, key=lambda s: (whole[s], -s))
    last = sorted(s for s in whole if s <= step)[-keep:]
    for old in [s for s in whole if s <= step and s not in (best, *last)]:
        checkpoint.step_path(folder, old).unlink(missing_ok=True)
        del whole[old]


def _remove_leftovers(folder: Path) -> None:
    """What a killed process left half-written."""
    for path in folder.iterdir():
        if re.fullmatch(r"\.step-\d{12,}\.safetensors\.\d+", path.name):
            path.unlink(missing_ok=True)
