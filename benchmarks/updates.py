"""An optax optimizer at nothing but updates, inside a scan or one call each."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.compiled import compiled
from benchmarks.reference import optimizing_error
from benchmarks.work import Optimizing, Program, optimizing_inputs
from nnjax.debug.flops import flops

MOMENTS = {"sgd": 0, "lion": 1, "adam": 2, "adamw": 2}


def updates(job: Optimizing, optimizer: optax.GradientTransformation, form: str) -> Program:
    """scan: all updates of a call in one program. calls: a jitted call for each update."""
    params, both = ([jnp.asarray(array) for array in arrays] for arrays in optimizing_inputs(job))
    turns = [[leaf[i] for leaf in both] for i in range(2)]

    def update(carry: Any, grads: Any) -> Any:
        params, opt_state = carry
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def scanned(carry: Any, both: Any) -> Any:
        def step(carry: Any, t: jax.Array) -> tuple[Any, None]:
            return update(carry, [leaf[t % 2] for leaf in both]), None

        return jax.lax.scan(step, carry, jnp.arange(job.steps))[0]

    def calls(carry: Any) -> Any:
        for t in range(job.steps):
            carry = jitted(carry, turns[t % 2])
        return carry

    carry = params, optimizer.init(params)
    jitted = jax.jit(scanned if form == "scan" else update, donate_argnums=0)
    program = compiled(jitted, carry, both if form == "scan" else turns[0])
    return Program(
        state=carry,
        call=calls if form == "calls" else lambda carry: program.call(carry, both),
        block=jax.block_until_ready,
        error=lambda carry: optimizing_error(job, [np.asarray(leaf) for leaf in carry[0]]),
        units=job.steps,
        stages=program.stages,
        memory=program.memory,
        flops=flops(update, carry, turns[0]).total,
        bytes=4 * job.parameters * (2 * MOMENTS[job.rule] + 3),
    )
