"""Many networks at once."""

import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from benchmarks.compiled import compiled
from benchmarks.peers.ours.training import bytes_of, found, run_of, start
from benchmarks.reference import ensemble_error
from benchmarks.work import Ensemble, Program, training_inputs
from nnjax import data
from nnjax.train.flops import flops
from nnjax.types import TrainState


def ensemble(job: Ensemble, form: str) -> Program:
    """The jitted `Run.steps` under `vmap`, or under `lax.map`; on all cores, each core has its share of the members."""
    cores = (os.cpu_count() or 1) if form.endswith("cores") else 1
    if cores > 1:
        jax.config.update("jax_num_cpu_devices", cores)
    inputs = training_inputs(job.training, job.members, own=job.own)
    run = run_of(job.training)
    examples = data.Data(jnp.asarray(inputs.x), jnp.asarray(inputs.y))
    axis = 0 if job.own else None
    keys = jax.random.split(jax.random.key(1), job.members)
    ts = jax.vmap(partial(start, run), in_axes=(0, 0, axis))(inputs.layers, keys, examples)
    steps = partial(run.steps, n=job.training.steps)
    rows = np.asarray(jax.vmap(partial(run.rows, n_examples=job.training.rows, n=job.training.steps))(ts))

    def members(ts: TrainState, examples: data.Data) -> Any:
        if form.startswith("vmap"):
            return jax.vmap(steps, in_axes=(0, axis))(ts, examples)
        each = (ts, examples) if job.own else (ts,)
        return lax.map(lambda one: steps(one[0], one[1] if job.own else examples), each)

    if cores > 1 and job.members % len(jax.devices()) == 0:
        mesh = jax.make_mesh((len(jax.devices()),), ("members",), axis_types=(AxisType.Auto,))
        split, whole = PartitionSpec("members"), PartitionSpec()
        in_specs = (split, split if job.own else whole)
        ts, examples = jax.device_put((ts, examples), tuple(NamedSharding(mesh, spec) for spec in in_specs))
        members = jax.shard_map(members, mesh=mesh, in_specs=in_specs, out_specs=split, check_vma=False)
    program = compiled(jax.jit(members, donate_argnums=0), ts, examples)
    return Program(
        state=ts,
        call=lambda ts: program.call(ts, examples)[0],
        block=jax.block_until_ready,
        error=lambda ts: ensemble_error(job, inputs, rows, found(ts)),
        units=job.training.steps * job.members,
        stages=program.stages,
        memory=program.memory,
        flops=flops(members, ts, examples).total // (job.training.steps * job.members),
        bytes=bytes_of(job.training),
    )
