"""Many networks at once: of dense layers, of convolutions, with hyper-parameters of their own."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import shards
from benchmarks.compiled import compiled
from benchmarks.peers.ours.training import bytes_of, found, run_of, start
from benchmarks.reference import ensemble_error
from benchmarks.work import Ensemble, Program, training_inputs
from nnjax import data
from nnjax.debug.flops import flops
from nnjax.types import TrainState


def ensemble(job: Ensemble, form: str) -> Program:
    """The jitted `Run.steps` under `vmap`, or under `lax.map`; on all cores, each core has its share of the members."""
    shards.use_cores(form)
    each = job.training
    inputs = training_inputs(each, job.members, own=job.own)
    pairs = jnp.asarray(job.pairs, jnp.float32) if job.pairs else None
    run = run_of(each, None if pairs is None else pairs[0])
    examples = data.Data(jnp.asarray(inputs.x), jnp.asarray(inputs.y))
    keys = jax.random.split(jax.random.key(1), job.members)
    ts = jax.vmap(partial(start, run), in_axes=(0, 0, 0 if job.own else None))(inputs.layers, keys, examples)
    rows = np.asarray(jax.jit(jax.vmap(partial(run.rows, n_examples=each.rows, n=each.steps)))(ts))
    mine, shared = (examples if job.own else None, pairs), None if job.own else examples

    def one(ts: TrainState, mine: Any, shared: Any) -> Any:
        own, pair = mine
        return run_of(each, pair).steps(ts, own if job.own else shared, each.steps)

    def members(ts: TrainState, mine: Any, shared: Any) -> Any:
        if form.startswith("vmap"):
            return jax.vmap(one, in_axes=(0, 0, None))(ts, mine, shared)
        return lax.map(lambda member: one(member[0], member[1], shared), (ts, mine))

    function, (ts, mine, shared) = shards.spread(form, members, (True, True, False), ts, mine, shared)
    program = compiled(jax.jit(function, donate_argnums=0), ts, mine, shared)
    return Program(
        state=ts,
        call=lambda ts: program.call(ts, mine, shared)[0],
        block=jax.block_until_ready,
        error=lambda ts: ensemble_error(job, inputs, rows, found(ts)),
        units=each.steps * job.members,
        stages=program.stages,
        memory=program.memory,
        flops=flops(function, ts, mine, shared).total // (each.steps * job.members),
        bytes=bytes_of(each),
    )


conv_ensemble = ensemble
sweep = ensemble
