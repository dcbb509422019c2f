"""The options of `fit` that the functions called by it share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nnjax import checks
from nnjax.types import TrainState

Record = dict[str, Any]  # numbers, or for an ensemble arrays (members,)
Callback = Callable[[TrainState, Record], bool | None]


class PartialRun(NamedTuple):
    """A run that was interrupted, in memory. `fit(…, resume=partial)` continues it in the same process."""

    ts: TrainState  # the state after the last step; for an ensemble in groups, that of the last group that began
    job: Any  # the arguments, a Job
    group: int | None
    groups: tuple[tuple[Any, Any], ...]  # the state and the logs of each group that began


Resume = bool | Literal["anyway"] | PartialRun


@dataclass(frozen=True)
class FitOptions:
    """The options that control how a run is driven, explained in `fit`.

    Raises:
      ValueError, TypeError: for a value out of range.
    """

    epochs: float
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
        checks.in_range("fit", "epochs", self.epochs, "[0, inf)")
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
        for callback in self.callbacks:
            if not callable(callback):
                raise TypeError(f"fit: each callback must be a function (ts, record), got {callback!r}")

    @property
    def folder(self) -> Path | None:
        """The folder for checkpoints."""
        return None if self.out is None else Path(self.out)
