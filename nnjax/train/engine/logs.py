"""Keep the values that a run logs, on the host, and summarise them in records."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from nnjax.train.engine.options import Record
from nnjax.types import Log


class Logs(NamedTuple):
    """All values logged so far, on the host. In a resumed run, they include the values before the interruption."""

    done: np.ndarray  # (members,) number of steps, including those that were not taken because the member had ended
    steps: dict[str, np.ndarray]  # (members, steps) the loss and the other logged values, NaN for steps not taken
    epochs: tuple[int, ...]  # indices of the epochs after which members were validated
    scores: tuple[dict[str, np.ndarray], ...]  # scores (members, ...) of each validation

    def with_room(self, names: Iterable[str], steps: int) -> "Logs":
        """Return the logs with an entry for each name, and with room for the given number of steps."""
        shape = (len(self.done), steps)
        float_ = jnp.result_type(float)
        padded = {name: np.full(shape, np.nan, float_) for name in dict.fromkeys(["loss", *self.steps, *names])}
        for name, values in self.steps.items():
            taken = min(values.shape[1], int(self.done.max(initial=0)))
            padded[name][:, :taken] = values[:, :taken]
        return self._replace(steps=padded)

    def add_steps(self, log: Log, until: np.ndarray, steps_taken: np.ndarray) -> "Logs":
        """Write the logs (members, ...) of a chunk in place, and return all logs.

        A member that ended early took only the steps before `steps_taken` (members,); its later entries stay NaN.
        """
        for member, (start, stop) in enumerate(zip(self.done, np.minimum(until, steps_taken), strict=True)):
            for name, values in self.steps.items():
                values[member, start : max(start, stop)] = log[name][member, : max(0, stop - start)]
        return self._replace(done=until)

    def add_scores(self, epoch: int, scores: dict[str, np.ndarray], diverged: np.ndarray) -> "Logs":
        """Append the scores of a validation. Scores of diverged members become NaN, even if they are finite."""
        float_ = jnp.result_type(float)
        masked = {name: mask_scores(score, diverged >= 0).astype(float_) for name, score in scores.items()}
        return self._replace(epochs=(*self.epochs, epoch), scores=(*self.scores, masked))

    def record_since(self, since: np.ndarray, epoch_steps: float) -> Record:
        """Return a record for callbacks and the progress bar: means of logs since step `since`, and the last scores."""
        step = int(self.done.max())
        steps = np.arange(since.min(initial=0), step)
        log = {name: values[:, steps] for name, values in self.steps.items()}
        has_value = ~np.isnan(log["loss"]) | (log["skipped"] > 0 if "skipped" in log else False)
        means = mean_log(log, (since[:, None] <= steps) & has_value)
        scores = {f"validation_{name}": score for name, score in self.scores[-1].items()} if self.scores else {}
        return {"step": step, "epoch": step / epoch_steps, **means, **scores}


def no_logs(members: int) -> Logs:
    """Return the logs before the first step."""
    return Logs(np.zeros(members, np.int64), steps={}, epochs=(), scores=())


def mask_scores(scores: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Replace the scores (members, ...) with NaN for the members that a mask (members,) selects."""
    return np.where(members.reshape(-1, *[1] * (scores.ndim - 1)), np.nan, scores)


def mean_log(steps: dict[str, np.ndarray], counted: np.ndarray) -> dict[str, np.ndarray]:
    """Return the mean (members,) of each log (members, steps) over the counted steps that were not skipped.

    The mean is NaN if there are no such steps. For "skipped" it is the share of skipped steps.
    """
    applied = counted & ~(steps["skipped"] > 0) if "skipped" in steps else counted
    means = {}
    with np.errstate(invalid="ignore"):
        for name, values in steps.items():
            part = counted if name == "skipped" else applied
            means[name] = np.where(part, values, 0).sum(1) / part.sum(1)
    return means


def finite_mean(values: Any) -> float:
    """Return the mean of the finite values, or NaN if there are none."""
    finite = np.asarray(values, float)[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def single_record(record: Record) -> Record:
    """Convert a record of a one-member ensemble to a record of a single run, without the member axis."""
    return {name: _number(value[0]) if isinstance(value, np.ndarray) else value for name, value in record.items()}


def _number(value: Any) -> Any:
    """Return a scalar as a Python number, and any other array unchanged."""
    return float(value) if np.ndim(value) == 0 else value
