"""Train LeNet in plain JAX. XLA uses a convolution library outside loops, but not inside loops."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.jobs.definitions import Ensemble
from benchmarks.jobs.inputs import CONVOLUTIONS, FEATURES, PADDINGS, training_inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.python_loop import epoch_rows
from benchmarks.jobs.reference import ensemble_error
from benchmarks.peers._jax.stages import compile_in_stages


def convolve(layers: Any, x: jax.Array) -> tuple[Any, jax.Array]:
    """Apply the convolutions, and return the dense layers and their input (batch, FEATURES)."""
    for (w, b), pad in zip(layers, PADDINGS, strict=False):
        x = lax.conv_general_dilated(x, w, (1, 1), 2 * [(pad, pad)], dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + b)
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return layers[len(CONVOLUTIONS) :], x.reshape(-1, FEATURES)


def train_members_in_turn(job: Ensemble, step: Any, optimizer: Any) -> Program:
    """Call a jitted step for each batch of each member from Python, so the XLA program contains no loop.

    Args:
      job: a job with mini-batches and shared data.
      step: function `((params, opt_state), x, y) -> ((params, opt_state), loss)`.
      optimizer: the optimizer of that step.
    """
    member = job.training
    inputs = training_inputs(member, job.members)
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)
    params = [jax.tree.map(lambda array, i=i: jnp.asarray(array[i]), inputs.layers) for i in range(job.members)]
    states = [(member_params, optimizer.init(member_params)) for member_params in params]

    def rows_step(carry: Any, x: jax.Array, y: jax.Array, rows: jax.Array) -> Any:
        return step(carry, x[rows], y[rows])[0]

    def call(carry: tuple[int, Any]) -> tuple[int, Any]:
        first, states = carry
        for epoch in range(first, first + member.epochs):
            for i in range(job.members):
                for rows in epoch_rows(member, epoch, i):
                    states[i] = jitted(states[i], x, y, rows)
        return first + member.epochs, states

    def to_arrays(states: Any) -> list[np.ndarray]:
        return [np.stack(leaves) for leaves in zip(*(jax.tree.leaves(params) for params, _ in states), strict=True)]

    jitted = jax.jit(rows_step, donate_argnums=0)
    rows = [
        [rows for epoch in range(member.epochs) for rows in epoch_rows(member, epoch, i)] for i in range(job.members)
    ]
    compiled = compile_in_stages(jitted, states[0], x, y, rows[0][0])
    return Program(
        state=(0, states),
        call=call,
        block=lambda carry: jax.block_until_ready(carry[1]),
        error=lambda carry: ensemble_error(job, inputs, np.asarray(rows), to_arrays(carry[1])),
        units=member.steps * job.members,
        stages=compiled.stages,
        memory=compiled.memory,
    )
