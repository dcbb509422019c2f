"""The loop in Python that most libraries leave to their users: an epoch's order, then a step for each batch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.jobs.definitions import Inputs, Program, Training
from benchmarks.jobs.reference import training_error

Step = Callable[[Any, np.ndarray | None], Any]  # (state, rows of the batch, None for all) -> state


def epoch_rows(job: Training, epoch: int, member: int = 0) -> list[np.ndarray | None]:
    """The rows (batch,) int32 of each step of an epoch, for a member of an ensemble its own."""
    if job.batch is None:
        return [None]
    order = np.random.default_rng((1, epoch, member)).permutation(job.rows).astype(np.int32)
    return list(order.reshape(-1, job.batch))


def loop(
    job: Training,
    inputs: Inputs,
    step: Step,
    state: Any,
    found: Callable[[Any], Sequence[np.ndarray]],
    block: Callable[[Any], object],
    stages: dict[str, float] = {},  # noqa: B006
    memory: dict[str, int] = {},  # noqa: B006
) -> Program:
    """A step in a loop, as a program.

    Args:
      job: what to do.
      inputs: from where to start.
      step: one step, the library's own.
      state: before the first, whatever the step takes.
      found: w and b of each layer in turn, of a state.
      block: waits until a state is there.
      stages: seconds, where they are known.
      memory: bytes, where they are known.
    """

    def call(at: tuple[int, Any]) -> tuple[int, Any]:
        epoch, state = at
        for i in range(job.epochs):
            for rows in epoch_rows(job, epoch + i):
                state = step(state, rows)
        return epoch + job.epochs, state

    def error(at: tuple[int, Any]) -> float:
        return loop_error(job, inputs, found(at[1]))

    return Program((0, state), call, lambda at: block(at[1]), error, job.steps, stages, memory)


def loop_error(job: Training, inputs: Inputs, found: Sequence[np.ndarray]) -> float:
    """How far the parameters after the first call are off, where the batches were those of `epoch_rows`."""
    batches = [rows for epoch in range(job.epochs) for rows in epoch_rows(job, epoch)]
    rows = None if job.batch is None else np.stack([batch for batch in batches if batch is not None])
    return training_error(job, inputs, rows, found)
