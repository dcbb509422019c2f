"""The order of the data."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.jobs.definitions import Program, Shuffling
from benchmarks.jobs.reference import shuffling_error
from benchmarks.peers._jax.stages import compiled
from nnjax import data


def shuffle(job: Shuffling, form: str) -> Program:
    """`batch_indices` of all steps of an epoch at once."""

    def rows(step: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        steps = step + jnp.arange(job.steps)
        drawn = jax.vmap(lambda step: data.batch_indices(key, step, job.rows, job.batch))(steps)
        return step + job.steps, drawn

    key = jax.random.key(1)
    program = compiled(jax.jit(rows), jnp.int32(0), key)
    return Program(
        state=(jnp.int32(0), None),
        call=lambda state: program.call(state[0], key),
        block=jax.block_until_ready,
        error=lambda state: shuffling_error(job, np.asarray(state[1])),
        units=job.steps,
        stages=program.stages,
        memory=program.memory,
    )
