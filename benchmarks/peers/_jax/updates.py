"""Run the updates of an optax optimizer without a network, in a scan or with one call per update."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.jobs.definitions import Updates
from benchmarks.jobs.inputs import update_inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference import update_error
from benchmarks.peers._jax.stages import compile_in_stages
from nnjax.debug import count_flops

MOMENTS = {"sgd": 0, "lion": 1, "adam": 2, "adamw": 2}  # number of arrays in the optimizer's state per parameter array


def optax_updates(job: Updates, optimizer: optax.GradientTransformation, form: str) -> Program:
    """Return a program with all updates in one scan (form "scan") or with one jitted call per update ("calls")."""
    params, both_grads = ([jnp.asarray(array) for array in arrays] for arrays in update_inputs(job))
    step_grads = [[leaf[i] for leaf in both_grads] for i in range(2)]

    def update(carry: Any, grads: Any) -> Any:
        params, opt_state = carry
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def scan(carry: Any, both_grads: Any) -> Any:
        def step(carry: Any, t: jax.Array) -> tuple[Any, None]:
            return update(carry, [leaf[t % 2] for leaf in both_grads]), None

        return jax.lax.scan(step, carry, jnp.arange(job.steps))[0]

    def call_each(carry: Any) -> Any:
        for t in range(job.steps):
            carry = jitted(carry, step_grads[t % 2])
        return carry

    carry = params, optimizer.init(params)
    jitted = jax.jit(scan if form == "scan" else update, donate_argnums=0)
    compiled = compile_in_stages(jitted, carry, both_grads if form == "scan" else step_grads[0])
    return Program(
        state=carry,
        call=call_each if form == "calls" else lambda carry: compiled.call(carry, both_grads),
        block=jax.block_until_ready,
        error=lambda carry: update_error(job, [np.asarray(leaf) for leaf in carry[0]]),
        units=job.steps,
        stages=compiled.stages,
        memory=compiled.memory,
        flops=count_flops(update, carry, step_grads[0]).total,
        bytes=4 * job.parameters * (2 * MOMENTS[job.rule] + 3),
    )
