"""Train one network. Ensembles use the functions for the network, the step and the epochs."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.jobs.definitions import Training
from benchmarks.jobs.inputs import training_inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference import training_error
from benchmarks.peers._jax.loss import mean_loss
from benchmarks.peers._jax.python_loop import python_loop
from benchmarks.peers._jax.scanned_loop import scanned_loop
from benchmarks.peers._jax.stages import compile_in_stages
from benchmarks.peers.plain_jax.lenet import convolve


def training(job: Training, form: str) -> Program:
    """Train with a jitted step or scan.

    The form "naive" calls a jitted step in a Python loop. "fast" is one scan over all epochs and steps of a call.
    "NumPy order" is a scan over rows that NumPy has shuffled; on CPUs, `jax.random.permutation` is slower.
    """
    inputs = training_inputs(job)
    optimizer = optax.adam(job.rate)
    params = jax.tree.map(jnp.asarray, inputs.layers)
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)
    carry = params, optimizer.init(params)
    step = make_step(job, optimizer)
    if form == "naive":
        jitted = jax.jit(step, donate_argnums=0)
        compiled = compile_in_stages(jitted, carry, x[: job.batch], y[: job.batch])

        def batch_step(carry: Any, rows: np.ndarray | None) -> Any:
            return jitted(carry, *((x, y) if rows is None else (inputs.x[rows], inputs.y[rows])))[0]

        return python_loop(job, inputs, batch_step, carry, to_arrays=to_arrays, compiled=compiled)
    if form == "NumPy order":
        return scanned_loop(job, inputs, lambda carry, x, y: step(carry, x, y)[0], carry, to_arrays=to_arrays)
    key = jax.random.key(1)
    rows = None if job.batch is None else np.asarray(first_rows(job, key))
    compiled = compile_in_stages(jax.jit(make_epochs(job, step), donate_argnums=0), (carry, key), x, y)
    return Program(
        state=(carry, key),
        call=lambda state: compiled.call(state, x, y)[0],
        block=jax.block_until_ready,
        error=lambda state: training_error(job, inputs, rows, to_arrays(state[0])),
        units=job.steps,
        stages=compiled.stages,
        memory=compiled.memory,
    )


def make_step(job: Training, optimizer: optax.GradientTransformation) -> Any:
    """Return the step `((params, opt_state), x, y) -> ((params, opt_state), loss)`."""

    def step(carry: Any, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        params, opt_state = carry
        loss, grads = jax.value_and_grad(lambda p: mean_loss(job, forward(job, p, x), y))(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    return step


def make_epochs(job: Training, step: Any) -> Any:
    """Return the function `((carry, key), x, y) -> ((carry, key), losses)` that runs all epochs of one call."""

    def epoch(x: jax.Array, y: jax.Array, carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        if job.batch is None:
            return step(carry, x, y)
        return jax.lax.scan(lambda c, rows: step(c, x[rows], y[rows]), carry, _shuffled_rows(job, key))

    def epochs(state: Any, x: jax.Array, y: jax.Array) -> Any:
        carry, key = state
        key, draw = jax.random.split(key)
        carry, losses = jax.lax.scan(partial(epoch, x, y), carry, jax.random.split(draw, job.epochs))
        return (carry, key), losses

    return epochs


def forward(job: Training, layers: Any, x: jax.Array) -> jax.Array:
    """Return the outputs of the network."""
    if job.images:
        layers, x = convolve(layers, x)
    for w, b in layers[:-1]:
        x = (jax.nn.relu if job.activation == "relu" else jnp.tanh)(x @ w + b)
    w, b = layers[-1]
    return x @ w + b


def first_rows(job: Training, key: jax.Array) -> jax.Array:
    """Return the row indices (steps, batch) of all batches in the first call."""
    draws = jax.random.split(jax.random.split(key)[1], job.epochs)
    return jnp.concatenate([_shuffled_rows(job, draw) for draw in draws])


def to_arrays(carry: Any) -> list[np.ndarray]:
    """Return w and b of each layer, in order."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(carry[0])]


def _shuffled_rows(job: Training, key: jax.Array) -> jax.Array:
    return jax.random.permutation(key, job.rows).reshape(-1, job.batch or job.rows)
