"""Collect the result of a training run: the last and the best network, and the history."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from nnjax.train.engine.ensemble import first_member
from nnjax.train.engine.fit_state import Best
from nnjax.train.engine.host_loop import Seconds
from nnjax.train.engine.job import Job
from nnjax.train.engine.logs import Logs, finite_mean, mean_log, single_record
from nnjax.train.engine.options import Record
from nnjax.types import TrainState


class Result(NamedTuple):
    """The result of `fit`. For an ensemble every array has a leading axis (members, ...).

    With `patience`, predict with `best`, the network with the lowest validation loss; `ts` is the state after the last
    step. After a member has stopped, it takes no steps, so its means in later records are NaN. Only `diverged` says
    whether a loss was not finite.
    """

    ts: TrainState  # the state after the last step
    best: Best | None  # the network with the lowest validation loss; None if there was no validation
    history: list[Record]  # for each epoch: "epoch", "step", the mean of each logged value, and "validation_…" scores
    log: dict[str, np.ndarray]  # (steps,) values logged in each step, such as the "loss" of the batch before the step
    diverged: np.ndarray  # () step with a non-finite loss, which ended the run; -1 if there was none
    stopped: np.ndarray  # () True if early stopping ended the run
    ended_by_callback: bool  # True if a callback ended the run
    seconds: Seconds

    @property
    def losses(self) -> np.ndarray:
        """Return the loss (steps,) of each batch before its step; in an ensemble, NaN for steps not taken."""
        return self.log["loss"]

    def best_scores(self) -> dict[str, Any]:
        """Return the epoch with the lowest validation loss, and the validation scores of this epoch that are scalars.

        Values are numbers; for an ensemble or folds, arrays (members,), with each member at its own best epoch.

        Raises:
          ValueError: if nothing was validated.

        >>> run = train.Run(nn.dense(1), losses.squared_error, optim.sgd(0.1), batch_size=4)
        >>> data = (np.ones((8, 1), np.float32), np.ones((8, 1), np.float32))
        >>> result = train.fit(run, data, validation=data, epochs=3)
        >>> sorted(result.best_scores())
        ['epoch', 'loss']
        """
        records = [record for record in self.history if "validation_loss" in record]
        if not records:
            raise ValueError("Result.best_scores: nothing was validated; fit with validation= or folds=")
        losses = np.array([record["validation_loss"] for record in records], float)
        rows = np.where(np.isnan(losses), np.inf, losses).argmin(0)
        names = [name for name in records[0] if name.startswith("validation_")]
        values = {"epoch": np.array([np.broadcast_to(record["epoch"], losses.shape[1:]) for record in records])}
        values |= {name.removeprefix("validation_"): np.array([record[name] for record in records]) for name in names}
        best = {name: np.take_along_axis(v, rows[None], 0)[0] for name, v in values.items() if v.shape == losses.shape}
        return {name: value if losses.ndim > 1 else float(value) for name, value in best.items()}

    def __repr__(self) -> str:
        """Return a summary with the number of members and steps, the last scores, and the members that diverged."""
        several = self.diverged.ndim > 0
        last = self.history[-1] if self.history else {}
        scores = [name for name in last if name == "loss" or name.startswith("validation_")]
        parts = [f"members={len(self.diverged)}"] if several else []
        parts.append(f"steps={int(np.max(self.ts.step))}")
        parts += [f"{name}={finite_mean(last[name]):.4g}" for name in scores if np.ndim(last[name]) <= several]
        if (self.diverged >= 0).any():
            parts.append(f"diverged={np.flatnonzero(self.diverged >= 0).tolist()}" if several else "diverged=True")
        return f"Result({', '.join(parts)}{'; means over the members' if several and scores else ''})"


def history_of(job: Job, logs: Logs, steps_taken: np.ndarray) -> Iterator[Record]:
    """Yield a record, with values (members,), for each epoch that at least one member has completed."""
    ends = job.members.ends
    scores = {tuple(ends[:, e]): scores for e, scores in zip(logs.epochs, logs.scores, strict=True)}
    start = np.zeros(len(ends), int)
    for e, end in enumerate(ends.T):
        if (end > logs.done).any() or (end > steps_taken).all():
            return
        if (end > start).any():  # an epoch shorter than a batch may contain no step
            steps = np.arange(start.min(), end.max())
            counted = (start[:, None] <= steps) & (steps < np.minimum(end, steps_taken)[:, None])
            means = mean_log({name: values[:, steps] for name, values in logs.steps.items()}, counted)
            step = int(end[0]) if (end == end[0]).all() else end.copy()  # folds may differ in their number of steps
            record: Record = {"epoch": min(e + 1.0, job.epochs), "step": step, **means}
            yield record | {f"validation_{name}": score for name, score in scores.get(tuple(end), {}).items()}
        start = end


def single_result(result: Result) -> Result:
    """Convert the result of a one-member ensemble to the result of a single run, without the member axis."""
    ts, best = first_member(result.ts), first_member(result.best)
    history = [single_record(record) for record in result.history]
    log = {name: values[0, : int(ts.step)] for name, values in result.log.items()}
    return result._replace(
        ts=ts,
        best=best,
        history=history,
        log=log,
        diverged=np.asarray(result.diverged[0]),
        stopped=np.asarray(result.stopped[0]),
    )
