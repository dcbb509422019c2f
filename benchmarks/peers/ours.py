"""nnjax."""

import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from benchmarks.compiled import compiled
from benchmarks.loop import loop
from benchmarks.reference import ensemble_error, training_error
from benchmarks.work import Ensemble, Inputs, Program, Training, training_inputs
from nnjax import data, losses, nn, optim, train
from nnjax.types import TrainState

NAME = "ours"
NEEDS = ("nnjax",)
FORMS = {"training": ("naive", "fast"), "ensemble": ("vmap", "map", "vmap on all cores", "map on all cores")}


def training(job: Training, form: str) -> Program:
    """naive: a jitted `Run.step` in a Python loop. fast: a jitted `Run.steps`."""
    inputs = training_inputs(job)
    run = run_of(job)
    examples = data.Data(jnp.asarray(inputs.x), jnp.asarray(inputs.y))
    ts = start(run, inputs.layers, jax.random.key(1), examples)
    if form == "naive":
        return _loop(job, inputs, run, ts, examples)
    jitted = jax.jit(partial(run.steps, n=job.steps), donate_argnums=0)
    program = compiled(jitted, ts, examples)
    rows = None if job.batch is None else np.asarray(run.rows(ts, job.rows, job.steps))
    return Program(
        state=ts,
        call=lambda ts: program.call(ts, examples)[0],
        block=jax.block_until_ready,
        error=lambda ts: training_error(job, inputs, rows, _found(ts)),
        units=job.steps,
        stages=program.stages,
        memory=program.memory,
    )


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
        error=lambda ts: ensemble_error(job, inputs, rows, _found(ts)),
        units=job.training.steps * job.members,
        stages=program.stages,
        memory=program.memory,
    )


def run_of(job: Training, rate: Any = None) -> train.Run:
    """The run of a job; with another learning rate, if one is given."""
    activation = jax.nn.relu if job.activation == "relu" else jnp.tanh
    net = nn.mlp(job.widths[1:-1], job.widths[-1], activation=activation)
    loss = losses.cross_entropy if job.loss == "cross_entropy" else losses.squared_error
    return train.Run(net, loss, optim.adam(job.rate if rate is None else rate), job.batch)


def start(run: train.Run, layers: Any, key: jax.Array, examples: data.Data) -> TrainState:
    """The state before the first step, with the parameters that all peers start from."""
    ts = run.init(key, examples)
    given = [jnp.asarray(array) for w, b in layers for array in (b, w)]  # leaves are in the order of names
    return ts._replace(params=jax.tree.unflatten(jax.tree.structure(ts.params), given))


def _loop(job: Training, inputs: Inputs, run: train.Run, ts: TrainState, examples: data.Data) -> Program:
    step = jax.jit(run.step, donate_argnums=0)

    def batch_step(ts: TrainState, rows: np.ndarray | None) -> TrainState:
        batch = examples if rows is None else data.Data(inputs.x[rows], inputs.y[rows])
        return step(ts, batch)[0]

    first = data.Data(examples.x[: job.batch], examples.y[: job.batch])
    stages = compiled(step, ts, first)
    return loop(job, inputs, batch_step, ts, _found, jax.block_until_ready, stages.stages, stages.memory)


def _found(ts: TrainState) -> list[np.ndarray]:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(ts.params)]
    return [leaf for b, w in zip(leaves[::2], leaves[1::2], strict=True) for leaf in (w, b)]
