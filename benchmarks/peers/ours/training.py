"""Train one network. Ensembles and deep networks use the functions that make the run and the initial state."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.jobs.definitions import Training
from benchmarks.jobs.inputs import CONVOLUTIONS, IMAGE, training_inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference import training_error
from benchmarks.peers._jax.python_loop import python_loop
from benchmarks.peers._jax.stages import compile_in_stages
from nnjax import data, losses, nn, optim, train
from nnjax.debug import count_flops
from nnjax.types import PyTree, TrainState

# The documentation of `dense` recommends features_first up to this width, for batches of hundreds of rows or more
NARROW, MANY_ROWS = 32, 512


def training(job: Training, form: str) -> Program:
    """Train with a jitted step or scan.

    The form "naive" calls a jitted `Run.step` in a Python loop. "fast" calls a jitted `Run.steps`, with
    `features_first=True` if the documentation of `nn.dense` recommends it.
    """
    inputs = training_inputs(job)
    is_narrow = max(job.widths) <= NARROW and (job.batch or job.rows) >= MANY_ROWS
    run = make_run(job, features_first=form == "fast" and is_narrow)
    examples = data.Data(jnp.asarray(inputs.x), jnp.asarray(inputs.y))
    first_batch = data.Data(examples.x[: job.batch], examples.y[: job.batch])
    ts = initial_state(run, inputs.layers, jax.random.key(1), examples)
    if form == "naive":
        step = jax.jit(run.step, donate_argnums=0)
        compiled = compile_in_stages(step, ts, first_batch)

        def batch_step(ts: TrainState, rows: np.ndarray | None) -> TrainState:
            batch = examples if rows is None else data.Data(inputs.x[rows], inputs.y[rows])
            return step(ts, batch)[0]

        return python_loop(job, inputs, batch_step, ts, to_arrays=to_arrays, compiled=compiled)
    compiled = compile_in_stages(jax.jit(partial(run.steps, n=job.steps), donate_argnums=0), ts, examples)
    rows = None
    if job.batch is not None:
        rows = np.asarray(jax.jit(run.rows, static_argnums=(2, 3))(ts.key, ts.step, job.rows, job.steps))
    return Program(
        state=ts,
        call=lambda ts: compiled.call(ts, examples)[0],
        block=jax.block_until_ready,
        error=lambda ts: training_error(job, inputs, rows, to_arrays(ts)),
        units=job.steps,
        stages=compiled.stages,
        memory=compiled.memory,
        flops=count_flops(run.step, ts, first_batch).total,
        bytes=step_traffic(job),
    )


def step_traffic(job: Training) -> int:
    """Return the bytes of a step: it reads the batch, and reads and writes the parameters and both moments."""
    parameters = sum((inputs + 1) * outputs for inputs, outputs in zip(job.widths[:-1], job.widths[1:], strict=True))
    if job.images:
        parameters += sum((math.prod(shape[:3]) + 1) * shape[3] for shape in CONVOLUTIONS)
    return 4 * (6 * parameters + (job.batch or job.rows) * (math.prod(IMAGE) if job.images else job.widths[0]))


def make_run(job: Training, pair: Any = None, *, features_first: bool = False) -> train.Run:
    """Return the run of a job; `pair` overrides its learning rate and weight decay."""
    activation = jax.nn.relu if job.activation == "relu" else jnp.tanh
    hidden, outputs = job.widths[1:-1], job.widths[-1]
    mlp = nn.mlp(hidden, outputs, activation=activation, features_first=features_first)
    net = nn.lenet(outputs) if job.images else mlp
    loss = losses.cross_entropy if job.loss == "cross_entropy" else losses.squared_error
    optimizer = optim.adam(job.rate) if pair is None else optim.adamw(pair[0], weight_decay=pair[1])
    return train.Run(net, loss, optimizer, batch_size=job.batch)


def initial_state(run: train.Run, layers: Any, key: jax.Array, examples: data.Data) -> TrainState:
    """Return the state before the first step, with the same initial parameters as all peers."""
    leaves = [jnp.asarray(array) for w, b in layers for array in (b, w)]  # pytree leaves are sorted by name

    @jax.jit  # under jit, XLA removes the unused initialisation of the parameters
    def replace_params(key: jax.Array, examples: data.Data, leaves: list[jax.Array]) -> TrainState:
        ts = run.init(key, examples)
        return ts._replace(params=jax.tree.unflatten(jax.tree.structure(ts.params), leaves))

    return replace_params(key, examples, leaves)


def to_arrays(ts: TrainState) -> list[np.ndarray]:
    """Return w and b of each layer, in order."""
    return layer_arrays(ts.params)


def layer_arrays(params: PyTree) -> list[np.ndarray]:
    """Return w and b of each layer, in order."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    return [leaf for b, w in zip(leaves[::2], leaves[1::2], strict=True) for leaf in (w, b)]
