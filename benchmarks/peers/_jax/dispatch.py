"""A jitted function of a tree of small arrays, called again and again."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.jobs.definitions import Dispatching, Program
from benchmarks.peers._jax.stages import compiled


def calls(job: Dispatching, add: Callable[[Any], Any], state: Any) -> Program:
    """So many calls of `add`, which adds 1 to the arrays of its donated state, or of the first part of it."""
    jitted = jax.jit(add, donate_argnums=0)
    program = compiled(jitted, state)

    def call(state: Any) -> Any:
        for _ in range(job.calls):
            state = jitted(state)
        return state

    return Program(
        state=state,
        call=call,
        block=jax.block_until_ready,
        error=lambda state: added_error(job, [np.asarray(leaf) for leaf in jax.tree.leaves(state)[-job.leaves :]]),
        units=job.calls,
        stages=program.stages,
        memory=program.memory,
    )


def zeros(job: Dispatching) -> list[jax.Array]:
    """The arrays before the first call."""
    return [jnp.zeros(job.size) for _ in range(job.leaves)]


def descents(job: Dispatching, optimizer: optax.GradientTransformation) -> Program:
    """The optimizer's update with rate 1 and gradients -1."""

    def add(state: Any) -> Any:
        opt_state, params = state
        updates, opt_state = optimizer.update(jax.tree.map(lambda p: -jnp.ones_like(p), params), opt_state, params)
        return opt_state, optax.apply_updates(params, updates)

    params = zeros(job)
    return calls(job, add, (optimizer.init(params), params))


def added_error(job: Dispatching, arrays: list[np.ndarray]) -> float:
    """Whether each number was added 1 to in each call; float32 counts exactly."""
    right = len(arrays) == job.leaves and all((array == job.calls).all() for array in arrays)
    return 0.0 if right and sum(array.size for array in arrays) == job.leaves * job.size else np.inf
