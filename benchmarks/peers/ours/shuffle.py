"""Shuffle the rows of an epoch with `data.batch_indices`."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.jobs.definitions import Shuffle
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference import shuffle_error
from benchmarks.peers._jax.stages import compile_in_stages
from nnjax import data


def shuffle(job: Shuffle, form: str) -> Program:
    """Compute `batch_indices` for all steps of an epoch at once."""

    def rows(step: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        steps = step + jnp.arange(job.steps)
        batches = jax.vmap(lambda step: data.batch_indices(key, step, job.rows, job.batch))(steps)
        return step + job.steps, batches

    key = jax.random.key(1)
    compiled = compile_in_stages(jax.jit(rows), jnp.int32(0), key)
    return Program(
        state=(jnp.int32(0), None),
        call=lambda state: compiled.call(state[0], key),
        block=jax.block_until_ready,
        error=lambda state: shuffle_error(job, np.asarray(state[1])),
        units=job.steps,
        stages=compiled.stages,
        memory=compiled.memory,
    )
