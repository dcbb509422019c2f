"""Equinox: `filter_jit`, and plain `jax.jit` over a model's leaves."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.jobs.definitions import Layers, Program, Training, training_inputs
from benchmarks.jobs.python_loop import loop
from benchmarks.peers._jax.stages import compiled
from benchmarks.peers.plain_jax import loss_of

NAME = "Equinox"
NEEDS = ("equinox", "optax")
FORMS = {"training": ("naive", "fast")}


def training(job: Training, form: str) -> Program:
    """naive: the examples' `filter_jit`, fed with NumPy rows. fast: flat leaves through a donating `jax.jit`.

    It joins what the documents offer against overhead: flat leaves ("Tricks", Low-overhead training loops), which with
    `filter_jit` take thrice as long, and `partition` with `jax.jit` ("All of Equinox"). The data stay on the device.
    """
    inputs = training_inputs(job)
    model = _model(job, inputs.layers)
    optimizer = optax.adam(job.rate)
    opt_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)

    def update(model: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any, jax.Array]:
        loss, grads = eqx.filter_value_and_grad(lambda model: loss_of(job, jax.vmap(model)(x), y))(model)
        updates, opt_state = optimizer.update(grads, opt_state, model)
        return eqx.apply_updates(model, updates), opt_state, loss

    if form == "naive":
        make_step = eqx.filter_jit(update)

        def naive(state: Any, rows: np.ndarray | None) -> Any:
            return make_step(*state, *((x, y) if rows is None else (inputs.x[rows], inputs.y[rows])))[:2]

        first = compiled(make_step, model, opt_state, inputs.x[: job.batch], inputs.y[: job.batch])
        block = lambda state: jax.block_until_ready(state[1])  # noqa: E731
        return loop(job, inputs, naive, (model, opt_state), _found, block, first.stages, first.memory)

    params, static = eqx.partition(model, eqx.is_array)
    leaves, structure = jax.tree.flatten((params, opt_state))

    def rows_update(leaves: Any, x: jax.Array, y: jax.Array, rows: jax.Array | None) -> tuple[Any, jax.Array]:
        params, opt_state = jax.tree.unflatten(structure, leaves)
        batch = (x, y) if rows is None else (x[rows], y[rows])
        model, opt_state, loss = update(eqx.combine(params, static), opt_state, *batch)
        return jax.tree.leaves((eqx.filter(model, eqx.is_array), opt_state)), loss

    def fast(leaves: Any, rows: np.ndarray | None) -> Any:
        return jitted(leaves, x, y, rows)[0]

    def found(leaves: Any) -> list[np.ndarray]:
        return _found(jax.tree.unflatten(structure, leaves))

    jitted = jax.jit(rows_update, donate_argnums=0)
    first = compiled(jitted, leaves, x, y, None if job.batch is None else np.arange(job.batch, dtype=np.int32))
    return loop(job, inputs, fast, leaves, found, jax.block_until_ready, first.stages, first.memory)


def _model(job: Training, layers: Layers) -> Any:
    activation = jax.nn.relu if job.activation == "relu" else jnp.tanh
    parts: list[Any] = []
    for w, b in layers:
        linear = eqx.nn.Linear(*w.shape, key=jax.random.key(0))
        linear = eqx.tree_at(lambda it: (it.weight, it.bias), linear, (jnp.array(w.T), jnp.array(b)))
        parts += [linear, eqx.nn.Lambda(activation)]
    return eqx.nn.Sequential(parts[:-1])


def _found(state: Any) -> list[np.ndarray]:
    layers = state[0].layers[::2]  # every other is an activation
    return [np.asarray(part) for layer in layers for part in (layer.weight.T, layer.bias)]
