"""Train in the Python loop that most libraries leave to their users: shuffle, then take one step per batch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.jobs.definitions import Training
from benchmarks.jobs.inputs import Inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.python_loop import epoch_rows, python_loop_error
from benchmarks.peers._jax.stages import Compiled

Step = Callable[[Any, np.ndarray | None], Any]  # (state, rows of the batch; None means all) -> state


def python_loop(
    job: Training,
    inputs: Inputs,
    step: Step,
    state: Any,
    *,
    to_arrays: Callable[[Any], Sequence[np.ndarray]],
    compiled: Compiled,
    block: Callable[[Any], object] = jax.block_until_ready,
) -> Program:
    """Return a program that calls a step in a Python loop.

    Args:
      job: the job.
      inputs: the initial parameters and the examples.
      step: function that takes one training step, implemented with the library.
      state: the state before the first step.
      to_arrays: function that maps a state to w and b of each layer, in order.
      compiled: the compiled step, with its compile times and memory.
      block: function that waits until a state has been computed.
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
        stages=compiled.stages,
        memory=compiled.memory,
    )
