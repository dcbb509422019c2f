"""Run all steps of a call in one program: a library's step in `lax.scan`, with data shuffled by NumPy."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.jobs.definitions import Training
from benchmarks.jobs.inputs import Inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.python_loop import epoch_rows, python_loop_error
from benchmarks.peers._jax.stages import compile_in_stages


def scanned_loop(
    job: Training,
    inputs: Inputs,
    step: Callable[[Any, jax.Array, jax.Array], Any],
    state: Any,
    *,
    to_arrays: Callable[[Any], Sequence[np.ndarray]],
) -> Program:
    """Return a program that runs a step in `lax.scan` over the batches of a call.

    Args:
      job: the job.
      inputs: the initial parameters and the examples.
      step: function `(state, x, y) -> state` that takes a step with the library on one batch; the state is a pytree.
      state: the state before the first step.
      to_arrays: function that maps a state to w and b of each layer, in order.
    """
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)

    def scan(state: Any, x: jax.Array, y: jax.Array, rows: jax.Array | None) -> Any:
        def batch_step(state: Any, rows: jax.Array | None) -> tuple[Any, None]:
            return step(state, *((x, y) if rows is None else (x[rows], y[rows]))), None

        return jax.lax.scan(batch_step, state, rows, length=job.steps)[0]

    def rows_of_call(epoch: int) -> np.ndarray | None:
        batches = [rows for i in range(job.epochs) for rows in epoch_rows(job, epoch + i) if rows is not None]
        return np.stack(batches) if batches else None

    compiled = compile_in_stages(jax.jit(scan, donate_argnums=0), state, x, y, rows_of_call(0))
    return Program(
        state=(0, state),
        call=lambda carry: (carry[0] + job.epochs, compiled.call(carry[1], x, y, rows_of_call(carry[0]))),
        block=lambda carry: jax.block_until_ready(carry[1]),
        error=lambda carry: python_loop_error(job, inputs, to_arrays(carry[1])),
        units=job.steps,
        stages=compiled.stages,
        memory=compiled.memory,
    )
