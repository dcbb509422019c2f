"""The Python loop that most libraries leave to their users: shuffle, then one step for each batch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.jobs.definitions import Training
from benchmarks.jobs.inputs import Inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference import training_error

Step = Callable[[Any, np.ndarray | None], Any]  # (state, rows of the batch or None for all) -> state


def epoch_rows(job: Training, epoch: int, member: int = 0) -> list[np.ndarray | None]:
    """Return the rows (batch,) int32 of each step of an epoch; every member of an ensemble has its own order."""
    if job.batch is None:
        return [None]
    order = np.random.default_rng((1, epoch, member)).permutation(job.rows).astype(np.int32)
    return list(order.reshape(-1, job.batch))


def python_loop(
    job: Training,
    inputs: Inputs,
    step: Step,
    state: Any,
    *,
    to_arrays: Callable[[Any], Sequence[np.ndarray]],
    block: Callable[[Any], object],
    stages: dict[str, float] = {},  # noqa: B006
    memory: dict[str, int] = {},  # noqa: B006
) -> Program:
    """Return a program that calls a step in a Python loop.

    Args:
      job: the job.
      inputs: the parameters at the start, and the examples.
      step: one step, written with the library.
      state: what the first step gets.
      to_arrays: returns w and b of each layer in turn, from a state.
      block: waits until a state is computed.
      stages: seconds to compile, if known.
      memory: bytes, if known.
    """

    def call(carry: tuple[int, Any]) -> tuple[int, Any]:
        epoch, state = carry
        for i in range(job.epochs):
            for rows in epoch_rows(job, epoch + i):
                state = step(state, rows)
        return epoch + job.epochs, state

    return Program(
        state=(0, state),
        call=call,
        block=lambda carry: block(carry[1]),
        error=lambda carry: python_loop_error(job, inputs, to_arrays(carry[1])),
        units=job.steps,
        stages=stages,
        memory=memory,
    )


def python_loop_error(job: Training, inputs: Inputs, params: Sequence[np.ndarray]) -> float:
    """Return the error of the parameters after the first call, for batches in the order of `epoch_rows`."""
    batches = [rows for epoch in range(job.epochs) for rows in epoch_rows(job, epoch)]
    rows = None if job.batch is None else np.stack([batch for batch in batches if batch is not None])
    return training_error(job, inputs, rows, params)
