"""Define the options of `fit` that it passes to other functions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nnjax import checks
from nnjax.storage.paths import as_path
from nnjax.types import TrainState

Record = dict[str, Any]  # numbers, or for an ensemble arrays (members,)
Callback = Callable[[TrainState, Record], bool | None]


class PartialRun(NamedTuple):
    """An interrupted run in memory. `fit(…, resume=partial)` continues it in the same process."""

    ts: TrainState  # the state after the last step; with several groups, the state of the last group that began
    job: Any  # the arguments, as a `Job`
    group: int | None
    groups: tuple[tuple[Any, Any], ...]  # the state and the logs of each group that began

    def __repr__(self) -> str:
        """Return a summary without the state and the data."""
        return f"PartialRun(members={self.job.ensemble.members}, groups={len(self.groups)})"


Resume = bool | Literal["anyway"] | PartialRun


@dataclass(frozen=True)
class FitOptions:
    """The options of the training loop; see `fit`.

    Raises:
      ValueError, TypeError: if a value is out of range or has the wrong type, or unless exactly one of `epochs` and
        `steps` is passed.
    """

    epochs: float | None = None
    steps: int | None = None
    group: int | None = None
    validate_every: int = 1
    patience: int | None = None
    chunk_steps: int | None = None
    out: str | Path | None = None
    resume: Resume = False
    save_every: float = 30.0
    keep: int = 3
    callbacks: Sequence[Callback] = ()
    callback_every: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            got = "neither" if self.epochs is None else "both"
            raise TypeError(f"fit: needs epochs= or steps=, the length of the run, got {got}")
        if self.epochs is not None:
            checks.in_range("fit", "epochs", self.epochs, "[0, inf)")
        if self.steps is not None:
            checks.positive_int("fit", "steps", self.steps, 0)
        checks.in_range("fit", "save_every", self.save_every, "[0, inf)")
        for name in ("validate_every", "keep"):
            checks.positive_int("fit", name, getattr(self, name))
        for name in ("group", "patience", "chunk_steps", "callback_every"):
            if getattr(self, name) is not None:
                checks.positive_int("fit", name, getattr(self, name))
        if not (
            isinstance(self.resume, bool | PartialRun) or (isinstance(self.resume, str) and self.resume == "anyway")
        ):
            raise ValueError(f"fit: resume must be True, False, 'anyway' or error.partial, got {self.resume!r}")
        checks.flag("fit", "progress", self.progress)
        self._check_folder()
        if not isinstance(self.callbacks, (tuple, list)):
            raise TypeError(f"fit: callbacks must be a list of functions, as in [f], got {self.callbacks!r:.80}")
        for callback in self.callbacks:
            checks.function_of("fit", "callbacks", callback, "ts", "record")

    def _check_folder(self) -> None:
        if self.out is None:
            if self.resume and not isinstance(self.resume, PartialRun):
                raise ValueError(
                    f"fit: resume={self.resume!r} needs out=, the folder of the checkpoints; pass out=, or omit resume="
                )
            return
        if not isinstance(self.out, (str, Path)):
            raise TypeError(f"fit: out must be a folder, as a string or a Path, got {self.out!r}")
        if not str(self.out):
            raise ValueError("fit: out must be a folder, got ''; out='.' is the current folder")
        folder = as_path(self.out)
        if file := next((place for place in (folder, *folder.parents) if place.is_file()), None):
            raise FileExistsError(f"fit: out must be a folder, but {file} is a file; choose another out=")

    @property
    def folder(self) -> Path | None:
        """Return the folder for checkpoints, or None if nothing is saved."""
        return None if self.out is None else as_path(self.out)
