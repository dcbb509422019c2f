"""Define the errors and warnings of a run, with details as attributes for callers that write their own messages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

Differences = Sequence[tuple[str, str, str]]  # (name, saved value, current value)


class RunMismatchError(ValueError):
    """The saved run differs from the one to resume."""

    def __init__(self, folder: Path | None, differences: Differences, *, reason: str | None = None):
        """Initialise the error.

        Args:
          folder: the folder of the checkpoints; None if the run is a `PartialRun`.
          differences: the entries of the fingerprint that differ.
          reason: why the saved state cannot be loaded; None if `resume="anyway"` would continue.
        """
        self.folder, self.differences, self.reason = folder, differences, reason
        if folder is None:
            text = "fit: this run differs from the interrupted run, which therefore cannot be continued"
            super().__init__(f"{text}:\n{format_differences(differences)}\npass the same arguments")
            return
        remedy = "resume='anyway' continues anyway; or choose another out="
        if reason:
            other_program = any(name == "step" for name, _, _ in differences)  # only then do the arrays tell more
            remedy = (
                f"{reason}\nchoose another out=" if other_program else "pass the saved values, or choose another out="
            )
        super().__init__(
            f"{folder}: the run differs from the saved one, so it cannot be resumed exactly:\n"
            f"{format_differences(differences)}\n{remedy}"
        )

    @property
    def resumable(self) -> bool:
        """Return True if `resume="anyway"` would continue from the checkpoints in `folder`."""
        return self.reason is None


class InterruptedRun(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP ended the run.

    Attributes:
      step: number of steps taken; in a search, the total of all networks.
      folder: the folder with the checkpoint of these steps; None if they are not saved.
      partial: the `train.PartialRun` to pass as `resume=`; None in a search, or if there are several processes.
    """

    def __init__(self, step: int, folder: Path | None, *, waiting: bool = False, partial: Any = None):
        """Initialise the exception.

        Args:
          step: number of steps taken.
          folder: the folder of the checkpoint; None if nothing is saved.
          waiting: True if the run was waiting for its source.
          partial: the run up to this step, see `PartialRun`.
        """
        self.step, self.folder, self.partial = step, folder, partial
        outcome = f"saved in {folder}; the same call with resume=True continues"
        if folder is None:
            memory = "; resume=error.partial continues, see train.InterruptedRun" if partial is not None else ""
            outcome = f"not saved, because out= was not passed{memory}"
        where = ", while it waited for the source" if waiting else ""
        super().__init__(f"stopped after step {step}{where}, {outcome}")


class DivergedWarning(RuntimeWarning):
    """The loss of a step is not finite."""

    def __init__(self, step: int, loss: float, member: int | None):
        """Initialise the warning.

        Args:
          step: index of the step, counted from 0.
          loss: the loss of the step.
          member: index of the member; None if there is only one run.
        """
        self.step, self.loss, self.member = step, loss, member
        place = "" if member is None else f" of member {member}"
        help_ = (
            "No update was made before, so the likely cause is in the data, the labels or the loss"
            if step == 0
            else "A smaller learning rate or optax.clip_by_global_norm may help"
        )
        super().__init__(
            f"fit: the loss of step {step}{place} is {loss}, so this was its last step. {help_}; train.replay(…) finds "
            "where it arose, and Run(skip_nonfinite=True) skips such steps"
        )


def format_differences(differences: Differences) -> str:
    """Return the differences as a table, one line each."""
    cells = [("", "saved", "now"), *differences]
    left, middle = (max(len(cell[i]) for cell in cells) for i in range(2))
    return "\n".join(f"  {name:<{left}}  {saved:<{middle}}  {now}".rstrip() for name, saved, now in cells)
