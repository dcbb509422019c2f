"""Write checkpoints on a background thread while training continues."""

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
from nnjax.storage.lock import folder_lock
from nnjax.storage.paths import as_path
from nnjax.types import PyTree


class CheckpointWriter(Protocol):
    """Write one checkpoint in the background and return True.

    If the previous one is still being written and `wait` is False, write nothing and return False.
    """

    def __call__(
        self, step: int, tree: PyTree, metadata: dict[str, Any], score: Any = None, *, wait: bool = False
    ) -> bool: ...


@contextmanager
def checkpoint_writer(folder: str | Path, keep: int = 3, *, write: bool = True) -> Iterator[CheckpointWriter]:
    """Yield a function that writes checkpoints to a folder on a background thread.

    `save(step, tree, metadata, score=None)` returns immediately. The thread copies the arrays to the host, computes
    their checksums and writes the file. Until it has finished, further calls return False and save nothing. With
    `wait=True`, a call waits until the previous checkpoint and the new one are on disk. The arrays must stay valid
    until they are written, so they must not be donated.

    `step` and `score` are added to the metadata. Once a checkpoint is on disk, older checkpoints are deleted, except
    the last `keep` and the one with the lowest score. Damaged checkpoints and checkpoints of later steps (left over if
    a run was resumed from an earlier step) are not deleted, and do not count towards `keep`.

    Args:
      folder: the folder, which is created if it does not exist and locked, so that only one process can write to it.
      keep: the number of most recent checkpoints to keep.
      write: True in exactly one process. With False, `save` does nothing and returns False.

    Raises:
      BlockingIOError: if another process is writing to the folder.
      OSError: if the last write, or a write with `wait=True`, fails; a note gives the path and the number of bytes.
        Earlier checkpoints stay intact.
      TypeError, ValueError: if `keep` is not an integer ≥ 1.

    Warns:
      RuntimeWarning: if any other write fails. The next call of `save` issues the warning and writes its checkpoint.

    >>> from pathlib import Path
    >>> from nnjax.storage import checkpoint
    >>> from nnjax.storage.background_writer import checkpoint_writer
    >>> with checkpoint_writer(Path("checkpoints"), keep=2) as save:
    ...     for step in (10, 20, 30):
    ...         _ = save(step, {"w": jnp.full(3, step)}, {}, score=1 / step, wait=True)
    >>> [path.name for path in checkpoint.files(Path("checkpoints"))]
    ['step-000000000020.safetensors', 'step-000000000030.safetensors']
    """
    checks.positive_int("checkpoint_writer", "keep", keep)
    if not write:
        yield lambda step, tree, metadata, score=None, *, wait=False: False
        return
    folder = as_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pending: Future[None] | None = None
    scores: dict[int, float] | None = None  # score of each intact checkpoint by step; infinity if it has none

    def write_checkpoint(step: int, tree: PyTree, metadata: dict[str, Any], score: Any) -> None:
        nonlocal scores
        if not folder.is_dir():
            raise FileNotFoundError(f"the folder {folder} was deleted or moved")
        _remove_partial_files(folder)  # before writing, to free space on a full disk
        scores = _intact_scores(folder) if scores is None else scores
        number = None if score is None or math.isnan(float(score)) else float(score)
        checkpoint.save(checkpoint.step_path(folder, step), tree, {**metadata, "step": step, "score": number})
        scores[step] = math.inf if number is None else number
        _remove_old(folder, step, keep, scores)

    def finish_pending(*, raise_error: bool) -> None:
        nonlocal pending
        if pending is None:
            return
        future, pending = pending, None
        try:
            future.result()
        except OSError as error:
            if raise_error:
                raise
            reason = " ".join([str(error), *getattr(error, "__notes__", [])])
            warnings.warn(f"a checkpoint was not written: {reason}; trying again", RuntimeWarning, stacklevel=3)

    def save(step: int, tree: PyTree, metadata: dict[str, Any], score: Any = None, *, wait: bool = False) -> bool:
        nonlocal pending
        if pending is not None and not pending.done() and not wait:
            return False
        finish_pending(raise_error=False)
        pending = thread.submit(write_checkpoint, int(step), tree, metadata, score)
        if wait:
            finish_pending(raise_error=True)
        return True

    # On exit, the executor waits for the last write, even after Ctrl-C
    with folder_lock(folder), ThreadPoolExecutor(1, "checkpoints") as thread:
        try:
            yield save
        except BaseException as error:
            write_error = pending and pending.exception()
            if write_error:
                error.add_note(f"also, the last checkpoint was not written: {write_error!r}")
            raise
        finish_pending(raise_error=True)


def _intact_scores(folder: Path) -> dict[int, float]:
    """Return the score of each intact checkpoint by step; the score is infinity if the checkpoint has none."""
    scores = {}
    for path in checkpoint.files(folder):
        try:
            score = checkpoint.verify(path).get("score")
        except (ValueError, OSError):
            continue
        scores[checkpoint.step_of(path)] = math.inf if score is None else score
    return scores


def _remove_old(folder: Path, step: int, keep: int, scores: dict[int, float]) -> None:
    """Delete the checkpoints up to `step`, except the last `keep` and the one with the lowest score."""
    best = min(scores, key=lambda s: (scores[s], -s))
    recent = sorted(s for s in scores if s <= step)[-keep:]
    for old in [s for s in scores if s <= step and s not in (best, *recent)]:
        checkpoint.step_path(folder, old).unlink(missing_ok=True)
        del scores[old]


def _remove_partial_files(folder: Path) -> None:
    """Delete partially written checkpoints left by killed processes."""
    for path in folder.iterdir():
        if re.fullmatch(r"\.step-\d{12,}\.safetensors\.\d+", path.name):
            path.unlink(missing_ok=True)
