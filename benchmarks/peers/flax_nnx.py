"""Flax nnx: objects with state, and a step to which they are bound."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.jobs.definitions import Layers, Program, Training, training_inputs
from benchmarks.jobs.python_loop import loop
from benchmarks.peers._jax.stages import compiled
from benchmarks.peers.plain_jax import loss_of

NAME = "Flax nnx"
NEEDS = ("flax", "optax")
FORMS = {"training": ("naive", "fast")}


def training(job: Training, form: str) -> Program:
    """naive: the tutorial's `nnx.jit` of model and optimizer, fed with NumPy rows. fast: `nnx.jit_partial`, donating.

    The guide "Performance considerations" has a cached partial function and a functional loop of `split`, `jax.jit` and
    `merge`. `jit_partial` is the cached one for trees, and faster than both. The data stay on the device.
    """
    inputs = training_inputs(job)
    model = _model(job, inputs.layers)
    optimizer = nnx.Optimizer(model, optax.adam(job.rate), wrt=nnx.Param)
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)

    def update(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda model: loss_of(job, model(x), y))(model)
        optimizer.update(model, grads)
        return loss

    if form == "naive":
        train_step = nnx.jit(update)

        def naive(state: Any, rows: np.ndarray | None) -> Any:
            train_step(*state, *((x, y) if rows is None else (inputs.x[rows], inputs.y[rows])))
            return state  # it is changed in place

        first = compiled(train_step, model, optimizer, inputs.x[: job.batch], inputs.y[: job.batch])
        return loop(job, inputs, naive, (model, optimizer), _found, _block, first.stages, first.memory)

    def rows_update(model: Any, optimizer: Any, x: jax.Array, y: jax.Array, rows: jax.Array | None) -> jax.Array:
        return update(model, optimizer, *((x, y) if rows is None else (x[rows], y[rows])))

    # model and optimizer are one argument of what it compiles, the first
    fast_step = nnx.jit_partial(rows_update, model, optimizer, graph=False, donate_argnums=0)

    def fast(state: Any, rows: np.ndarray | None) -> Any:
        fast_step(x, y, rows)
        return state

    first = compiled(fast_step, x, y, None if job.batch is None else np.arange(job.batch, dtype=np.int32))
    return loop(job, inputs, fast, (model, optimizer), _found, _block, first.stages, first.memory)


def _block(state: Any) -> None:
    jax.block_until_ready(nnx.state(state))


def _model(job: Training, layers: Layers) -> Any:
    activation = nnx.relu if job.activation == "relu" else nnx.tanh
    parts: list[Any] = []
    for w, b in layers:
        linear: Any = nnx.Linear(*w.shape, rngs=nnx.Rngs(0))
        linear.kernel[...], linear.bias[...] = jnp.array(w), jnp.array(b)
        parts += [linear, activation]
    return nnx.Sequential(*parts[:-1])


def _found(state: Any) -> list[np.ndarray]:
    layers = state[0].layers[::2]  # every other is an activation
    return [np.asarray(part[...]) for layer in layers for part in (layer.kernel, layer.bias)]
