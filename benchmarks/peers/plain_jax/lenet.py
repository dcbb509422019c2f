"""LeNet in plain JAX, whose convolution XLA compiles in two ways: outside of loops with a library, inside without."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.jobs.definitions import CONVOLUTIONS, FEATURES, PADDINGS, Ensemble, Program, training_inputs
from benchmarks.jobs.python_loop import epoch_rows
from benchmarks.jobs.reference import ensemble_error
from benchmarks.peers._jax.stages import compiled


def convolved(layers: Any, x: jax.Array) -> tuple[Any, jax.Array]:
    """The dense layers that are left, and what they are given: (batch, FEATURES)."""
    for (w, b), pad in zip(layers, PADDINGS, strict=False):
        x = lax.conv_general_dilated(x, w, (1, 1), 2 * [(pad, pad)], dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + b)
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return layers[len(CONVOLUTIONS) :], x.reshape(-1, FEATURES)


def one_by_one(job: Ensemble, step: Any, optimizer: Any) -> Program:
    """A jitted step for every batch of every member.

    Args:
      job: what to do, in batches, with data that are shared.
      step: `((params, opt_state), x, y) -> ((params, opt_state), loss)`.
      optimizer: of that step.
    """
    each = job.training
    inputs = training_inputs(each, job.members)
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)
    members = [jax.tree.map(lambda array, i=i: jnp.asarray(array[i]), inputs.layers) for i in range(job.members)]
    state = [(params, optimizer.init(params)) for params in members]

    def rows_step(carry: Any, x: jax.Array, y: jax.Array, rows: jax.Array) -> Any:
        return step(carry, x[rows], y[rows])[0]

    def call(at: tuple[int, Any]) -> tuple[int, Any]:
        first, state = at
        for epoch in range(first, first + each.epochs):
            for i in range(job.members):
                for rows in epoch_rows(each, epoch, i):
                    state[i] = jitted(state[i], x, y, rows)
        return first + each.epochs, state

    def found(state: Any) -> list[np.ndarray]:
        return [np.stack(parts) for parts in zip(*(jax.tree.leaves(params) for params, _ in state), strict=True)]

    jitted = jax.jit(rows_step, donate_argnums=0)
    drawn = [[rows for epoch in range(each.epochs) for rows in epoch_rows(each, epoch, i)] for i in range(job.members)]
    first = compiled(jitted, state[0], x, y, drawn[0][0])
    return Program(
        state=(0, state),
        call=call,
        block=lambda at: jax.block_until_ready(at[1]),
        error=lambda at: ensemble_error(job, inputs, np.asarray(drawn), found(at[1])),
        units=each.steps * job.members,
        stages=first.stages,
        memory=first.memory,
    )
