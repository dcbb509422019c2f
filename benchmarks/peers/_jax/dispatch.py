"""Call a jitted function many times on a tree of small arrays."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.jobs.definitions import Dispatch
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference import dispatch_error
from benchmarks.peers._jax.stages import compile_in_stages


def jitted_calls(job: Dispatch, add_one: Callable[[Any], Any], state: Any) -> Program:
    """Return a program that calls `add_one` on a donated state, whose last leaves are the arrays of the job."""
    jitted = jax.jit(add_one, donate_argnums=0)
    compiled = compile_in_stages(jitted, state)

    def call(state: Any) -> Any:
        for _ in range(job.calls):
            state = jitted(state)
        return state

    return Program(
        state=state,
        call=call,
        block=jax.block_until_ready,
        error=lambda state: dispatch_error(job, [np.asarray(leaf) for leaf in jax.tree.leaves(state)[-job.leaves :]]),
        units=job.calls,
        stages=compiled.stages,
        memory=compiled.memory,
    )


def zero_leaves(job: Dispatch) -> list[jax.Array]:
    """Return the initial arrays of the job."""
    return [jnp.zeros(job.size) for _ in range(job.leaves)]


def optimizer_calls(job: Dispatch, optimizer: optax.GradientTransformation) -> Program:
    """Return a program that calls an optimizer's update with gradients of -1; SGD with rate 1 then adds 1."""

    def add_one(state: Any) -> Any:
        opt_state, params = state
        updates, opt_state = optimizer.update(jax.tree.map(lambda p: -jnp.ones_like(p), params), opt_state, params)
        return opt_state, optax.apply_updates(params, updates)

    params = zero_leaves(job)
    return jitted_calls(job, add_one, (optimizer.init(params), params))
