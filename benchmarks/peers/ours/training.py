"""One network."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.compiled import compiled
from benchmarks.loop import loop
from benchmarks.reference import training_error
from benchmarks.work import CONVOLUTIONS, IMAGE, Inputs, Program, Training, training_inputs
from nnjax import data, losses, nn, optim, train
from nnjax.debug.flops import flops
from nnjax.types import TrainState

NARROW, MANY = 32, 512  # features of all layers, and rows, for which `dense` recommends features first


def training(job: Training, form: str) -> Program:
    """naive: a jitted `Run.step` in a Python loop. fast: a jitted `Run.steps`, features first where `dense` says so."""
    inputs = training_inputs(job)
    run = run_of(job, features_first=form == "fast" and max(job.widths) <= NARROW and (job.batch or job.rows) >= MANY)
    examples = data.Data(jnp.asarray(inputs.x), jnp.asarray(inputs.y))
    ts = start(run, inputs.layers, jax.random.key(1), examples)
    if form == "naive":
        return _loop(job, inputs, run, ts, examples)
    jitted = jax.jit(partial(run.steps, n=job.steps), donate_argnums=0)
    program = compiled(jitted, ts, examples)
    rows = None if job.batch is None else np.asarray(jax.jit(lambda ts: run.rows(ts.key, ts.step, job.rows, job.steps))(ts))
    return Program(
        state=ts,
        call=lambda ts: program.call(ts, examples)[0],
        block=jax.block_until_ready,
        error=lambda ts: training_error(job, inputs, rows, found(ts)),
        units=job.steps,
        stages=program.stages,
        memory=program.memory,
        flops=flops(run.step, ts, _first(job, examples)).total,
        bytes=bytes_of(job),
    )


def bytes_of(job: Training) -> int:
    """What a step must read (a batch, parameters, moments) and write (parameters, moments), all else being at hand."""
    parameters = sum((inputs + 1) * outputs for inputs, outputs in zip(job.widths[:-1], job.widths[1:], strict=True))
    if job.images:
        parameters += sum((math.prod(shape[:3]) + 1) * shape[3] for shape in CONVOLUTIONS)
    return 4 * (6 * parameters + (job.batch or job.rows) * (math.prod(IMAGE) if job.images else job.widths[0]))


def run_of(job: Training, pair: Any = None, *, features_first: bool = False) -> train.Run:
    """The run of a job; with another learning rate and decay, if they are given."""
    activation = jax.nn.relu if job.activation == "relu" else jnp.tanh
    outputs = job.widths[-1]
    hidden = job.widths[1:-1]
    mlp = nn.mlp(hidden, outputs, activation=activation, features_first=features_first)
    net = nn.lenet(outputs) if job.images else mlp
    loss = losses.cross_entropy if job.loss == "cross_entropy" else losses.squared_error
    optimizer = optim.adam(job.rate) if pair is None else optim.adamw(pair[0], weight_decay=pair[1])
    return train.Run(net, loss, optimizer, batch_size=job.batch)


def start(run: train.Run, layers: Any, key: jax.Array, examples: data.Data) -> TrainState:
    """The state before the first step, with the parameters that all peers start from."""
    given = [jnp.asarray(array) for w, b in layers for array in (b, w)]  # leaves are in the order of names

    @jax.jit  # leaves out the drawing of parameters, which are not used
    def begin(key: jax.Array, examples: data.Data, given: list[jax.Array]) -> TrainState:
        ts = run.init(key, examples)
        return ts._replace(params=jax.tree.unflatten(jax.tree.structure(ts.params), given))

    return begin(key, examples, given)


def _loop(job: Training, inputs: Inputs, run: train.Run, ts: TrainState, examples: data.Data) -> Program:
    step = jax.jit(run.step, donate_argnums=0)

    def batch_step(ts: TrainState, rows: np.ndarray | None) -> TrainState:
        batch = examples if rows is None else data.Data(inputs.x[rows], inputs.y[rows])
        return step(ts, batch)[0]

    stages = compiled(step, ts, _first(job, examples))
    return loop(job, inputs, batch_step, ts, found, jax.block_until_ready, stages.stages, stages.memory)


def found(ts: TrainState) -> list[np.ndarray]:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(ts.params)]
    return [leaf for b, w in zip(leaves[::2], leaves[1::2], strict=True) for leaf in (w, b)]


def _first(job: Training, examples: data.Data) -> data.Data:
    return data.Data(examples.x[: job.batch], examples.y[: job.batch])
