"""Shuffle the rows of an epoch with `jax.random.permutation`."""

import jax
import numpy as np

from benchmarks.jobs.definitions import Shuffle
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference import shuffle_error
from benchmarks.peers._jax.stages import compile_in_stages


def shuffle(job: Shuffle, form: str) -> Program:
    """Draw the rows of all batches of an epoch with `jax.random.permutation`."""

    def rows(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        key, draw = jax.random.split(key)
        return key, jax.random.permutation(draw, job.rows).reshape(-1, job.batch)

    compiled = compile_in_stages(jax.jit(rows), jax.random.key(1))
    return Program(
        state=(jax.random.key(1), None),
        call=lambda state: compiled.call(state[0]),
        block=jax.block_until_ready,
        error=lambda state: shuffle_error(job, np.asarray(state[1])),
        units=job.steps,
        stages=compiled.stages,
        memory=compiled.memory,
    )
