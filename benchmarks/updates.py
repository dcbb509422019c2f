"""An optax optimizer at nothing but updates, inside a scan or one call each."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.compiled import compiled
from benchmarks.reference import optimizing_error
from benchmarks.work import Optimizing, Program, optimizing_inputs
from nnjax.train.flops import flops

MOMENTS = {"sgd": 0, "lion": 1, "adam": 2, "adamw": 2}


def updates(job: Optimizing, optimizer: optax.GradientTransformation, form: str) -> Program:
    """scan: all updates of a call in one program. calls: a jitted call for each update."""
    params, grads = ([jnp.asarray(array) for array in arrays] for arrays in optimizing_inputs(job))

    def update(carry: Any, grads: Any) -> tuple[Any, None]:
        params, opt_state = carry
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    def scanned(carry: Any, grads: Any) -> Any:
        return jax.lax.scan(lambda carry, _: update(carry, grads), carry, length=job.steps)[0]

    carry = params, optimizer.init(params)
    if form == "scan":
        program = compiled(jax.jit(scanned, donate_argnums=0), carry, grads)
        call = lambda carry: program.call(carry, grads)  # noqa: E731
    else:
        jitted = jax.jit(lambda carry, grads: update(carry, grads)[0], donate_argnums=0)
        program = compiled(jitted, carry, grads)

        def call(carry: Any) -> Any:
            for _ in range(job.steps):
                carry = jitted(carry, grads)
            return carry

    return Program(
        state=carry,
        call=call,
        block=jax.block_until_ready,
        error=lambda carry: optimizing_error(job, [np.asarray(leaf) for leaf in carry[0]]),
        units=job.steps,
        stages=program.stages,
        memory=program.memory,
        flops=flops(lambda carry, grads: update(carry, grads)[0], carry, grads).total,
        bytes=4 * job.parameters * (2 * MOMENTS[job.rule] + 3),
    )
