"""Train many networks: dense networks, convolutional networks, and sweeps over hyper-parameters."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.jobs.definitions import Ensemble
from benchmarks.jobs.inputs import training_inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference import ensemble_error
from benchmarks.peers._jax import all_cores
from benchmarks.peers._jax.stages import compile_in_stages
from benchmarks.peers.ours.training import initial_state, make_run, step_traffic, to_arrays
from nnjax import data
from nnjax.debug import count_flops
from nnjax.types import TrainState


def ensemble(job: Ensemble, form: str) -> Program:
    """Run `Run.steps` under `vmap` or `lax.map`; "on all cores" distributes the members over the CPU cores.

    Raises:
      ValueError: if the form is "on all cores" and there is only one device or members cannot be split evenly.
    """
    all_cores.make_cores_devices(form)
    member_job = job.training
    inputs = training_inputs(member_job, job.members, own_data=job.own_data)
    pairs = jnp.asarray(job.pairs, jnp.float32) if job.pairs else None
    run = make_run(member_job, None if pairs is None else pairs[0])
    examples = data.Data(jnp.asarray(inputs.x), jnp.asarray(inputs.y))
    keys = jax.random.split(jax.random.key(1), job.members)
    axes = (0, 0, 0 if job.own_data else None)
    ts = jax.vmap(partial(initial_state, run), in_axes=axes)(inputs.layers, keys, examples)
    first_rows = partial(run.rows, n_examples=member_job.rows, n=member_job.steps)
    rows = np.asarray(jax.jit(jax.vmap(first_rows))(ts.key, ts.step))
    member_args, shared = (examples if job.own_data else None, pairs), None if job.own_data else examples

    def steps(ts: TrainState, member_args: Any, shared: Any) -> Any:
        own_examples, pair = member_args
        return make_run(member_job, pair).steps(ts, own_examples if job.own_data else shared, member_job.steps)

    def members(ts: TrainState, member_args: Any, shared: Any) -> Any:
        if form.startswith("vmap"):
            return jax.vmap(steps, in_axes=(0, 0, None))(ts, member_args, shared)
        return lax.map(lambda member: steps(member[0], member[1], shared), (ts, member_args))

    has_members = (True, True, False)
    function, (ts, member_args, shared) = all_cores.shard_members(form, members, has_members, ts, member_args, shared)
    compiled = compile_in_stages(jax.jit(function, donate_argnums=0), ts, member_args, shared)
    units = member_job.steps * job.members
    return Program(
        state=ts,
        call=lambda ts: compiled.call(ts, member_args, shared)[0],
        block=jax.block_until_ready,
        error=lambda ts: ensemble_error(job, inputs, rows, to_arrays(ts)),
        units=units,
        stages=compiled.stages,
        memory=compiled.memory,
        flops=count_flops(function, ts, member_args, shared).total // units,
        bytes=step_traffic(member_job),
    )


conv_ensemble = ensemble
sweep = ensemble
