"""A chunk of a run: any number of steps in one program, compiled once."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from nnjax.train.run import Log, Run, take
from nnjax.types import Data, TrainState

ROWS = 8192  # drawn at once: fewer cost more each, more are wasted in a short chunk
CAPACITY = 1024  # steps whose logs fit into one chunk


@partial(jax.jit, static_argnames="run", donate_argnames="ts")
def chunk(run: Run, ts: TrainState, data: Data, n: Array) -> tuple[TrainState, Log]:
    """`n` ≤ CAPACITY steps, `n` known only when the program runs.

    One loop with a trip count that is an argument, not a scan: it compiles once for every length, and a run cut into
    chunks any way has the same bits. (XLA inlines a scan of length 1 and then rounds otherwise.)

    Args:
      run: the run.
      ts: the state before, whose memory is given to the state after.
      data: all examples.
      n: () int32.

    Returns:
      The state after, and the logs of the steps, (CAPACITY,) of which the first n count.
    """
    first = jax.eval_shape(lambda: run.steps(ts, data, 1)[1])
    logs = {name: jnp.zeros((CAPACITY,), log.dtype) for name, log in first.items()}

    def one(i: Array, carry: tuple[TrainState, Log], start: Array, batch: Data) -> tuple[TrainState, Log]:
        ts, logs = carry
        ts, log = run.step(ts, batch)
        return ts, {name: logs[name].at[start + i].set(log[name]) for name in logs}

    if run.batch_size is None:
        return lax.fori_loop(0, n, lambda i, carry: one(i, carry, jnp.zeros_like(i), data), (ts, logs))

    size = min(CAPACITY, max(1, ROWS // run.batch_size))  # steps

    def block(b: Array, carry: tuple[TrainState, Log]) -> tuple[TrainState, Log]:
        rows = run.rows(carry[0], data, size)
        start = b * size
        steps = jnp.minimum(size, n - start)
        return lax.fori_loop(0, steps, lambda i, carry: one(i, carry, start, take(data, rows[i])), carry)

    return lax.fori_loop(0, (n + size - 1) // size, block, (ts, logs))
