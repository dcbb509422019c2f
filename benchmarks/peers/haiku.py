"""Haiku: `hk.transform` and a jitted step."""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.jobs.definitions import Program, Training, training_inputs
from benchmarks.jobs.python_loop import loop
from benchmarks.peers._jax.stages import compiled
from benchmarks.peers.plain_jax import loss_of

NAME = "Haiku"
NEEDS = ("haiku", "optax")
FORMS = {"training": ("naive", "fast")}


def training(job: Training, form: str) -> Program:
    """naive: the MNIST example's jitted update, fed with NumPy rows. fast: its state is donated.

    Haiku's documents name no faster loop: it "composes with the rest of JAX", so that donation is what JAX recommends.
    The data stay on the device.
    """
    inputs = training_inputs(job)
    activation = jax.nn.relu if job.activation == "relu" else jnp.tanh

    def net_fn(x: jax.Array) -> jax.Array:
        parts: list[Any] = []
        for width in job.widths[1:]:
            parts += [hk.Linear(width), activation]
        return hk.Sequential(parts[:-1])(x)

    net: Any = hk.without_apply_rng(hk.transform(net_fn))
    optimizer = optax.adam(job.rate)
    params = {_name(i): {"w": jnp.array(w), "b": jnp.array(b)} for i, (w, b) in enumerate(inputs.layers)}
    made = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, job.widths[0])))
    jax.tree.map(lambda made, given: None, made, params)  # raises where the structures differ
    state: Any = params, optimizer.init(params)
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)

    def update(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any]:
        grads = jax.grad(lambda params: loss_of(job, net.apply(params, x), y))(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state

    def rows_update(params: Any, opt_state: Any, x: jax.Array, y: jax.Array, rows: Any) -> tuple[Any, Any]:
        return update(params, opt_state, *((x, y) if rows is None else (x[rows], y[rows])))

    def naive(state: Any, rows: np.ndarray | None) -> Any:
        return naive_update(*state, *((x, y) if rows is None else (inputs.x[rows], inputs.y[rows])))

    def fast(state: Any, rows: np.ndarray | None) -> Any:
        return fast_update(*state, x, y, rows)

    naive_update, fast_update = jax.jit(update), jax.jit(rows_update, donate_argnums=(0, 1))
    if form == "naive":
        first = compiled(naive_update, *state, x[: job.batch], y[: job.batch])
    else:
        first = compiled(fast_update, *state, x, y, None if job.batch is None else np.arange(job.batch, dtype=np.int32))
    step = naive if form == "naive" else fast
    return loop(job, inputs, step, state, _found, jax.block_until_ready, first.stages, first.memory)


def _name(i: int) -> str:
    return f"linear_{i}" if i else "linear"


def _found(state: Any) -> list[np.ndarray]:
    layers = [state[0][_name(i)] for i in range(len(state[0]))]
    return [np.asarray(layer[part]) for layer in layers for part in ("w", "b")]
