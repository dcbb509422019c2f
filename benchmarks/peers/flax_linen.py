"""Flax linen: `TrainState` and a jitted step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

from benchmarks.jobs.definitions import Program, Training, training_inputs
from benchmarks.jobs.python_loop import loop
from benchmarks.peers._jax.stages import compiled
from benchmarks.peers.plain_jax import loss_of

NAME = "Flax linen"
NEEDS = ("flax", "optax")
FORMS = {"training": ("naive", "fast")}


def training(job: Training, form: str) -> Program:
    """naive: the tutorial's jitted step, fed with NumPy rows. fast: the state is donated.

    Linen's guides name no faster loop; donating the state is what `jax.jit` recommends. The data stay on the device.
    """
    inputs = training_inputs(job)
    activation = nn.relu if job.activation == "relu" else nn.tanh
    parts: list[Any] = []
    for width in job.widths[1:]:
        parts += [nn.Dense(width), activation]
    model = nn.Sequential(parts[:-1])
    variables: Any = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, job.widths[0])))
    params = {_name(i): {"kernel": jnp.array(w), "bias": jnp.array(b)} for i, (w, b) in enumerate(inputs.layers)}
    jax.tree.map(lambda made, given: None, variables["params"], params)  # raises where the structures differ
    state: Any = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(job.rate))
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)

    def train_step(state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        def loss_fn(params: Any) -> jax.Array:
            return loss_of(job, state.apply_fn({"params": params}, x), y)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss

    def rows_step(state: Any, x: jax.Array, y: jax.Array, rows: jax.Array | None) -> tuple[Any, jax.Array]:
        return train_step(state, *((x, y) if rows is None else (x[rows], y[rows])))

    def naive(state: Any, rows: np.ndarray | None) -> Any:
        return naive_step(state, *((x, y) if rows is None else (inputs.x[rows], inputs.y[rows])))[0]

    def fast(state: Any, rows: np.ndarray | None) -> Any:
        return fast_step(state, x, y, rows)[0]

    naive_step, fast_step = jax.jit(train_step), jax.jit(rows_step, donate_argnums=0)
    if form == "naive":
        first = compiled(naive_step, state, x[: job.batch], y[: job.batch])
    else:
        first = compiled(fast_step, state, x, y, None if job.batch is None else np.arange(job.batch, dtype=np.int32))
    step = naive if form == "naive" else fast
    return loop(job, inputs, step, state, _found, jax.block_until_ready, first.stages, first.memory)


def _name(i: int) -> str:
    return f"layers_{2 * i}"  # every other is an activation


def _found(state: Any) -> list[np.ndarray]:
    layers = [state.params[_name(i)] for i in range(len(state.params))]
    return [np.asarray(layer[part]) for layer in layers for part in ("kernel", "bias")]
