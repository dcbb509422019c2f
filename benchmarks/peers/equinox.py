"""Train with Equinox, using `filter_jit`, or `jax.jit` over the leaves of the model."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.jobs.definitions import Training
from benchmarks.jobs.inputs import Layers, training_inputs
from benchmarks.jobs.program import Program
from benchmarks.peers._jax.loss import mean_loss
from benchmarks.peers._jax.python_loop import python_loop
from benchmarks.peers._jax.scanned_loop import scanned_loop
from benchmarks.peers._jax.stages import compile_in_stages

NAME = "Equinox"
NEEDS = ("equinox", "optax")
FORMS = {"training": ("naive", "fast", "scan")}


def training(job: Training, form: str) -> Program:
    """Train with a step as in the library's documentation, in a Python loop or in a scan.

    The form "naive" uses `filter_jit` as in the examples, called with NumPy arrays. "fast" uses `jax.jit` with donated,
    flattened leaves and the data on the device. This combines two documented ways to reduce overhead: flattened leaves
    ("Low-overhead training loops" in "Tricks"), and `partition` with `jax.jit` ("All of Equinox"). With `filter_jit`,
    flattened leaves are three times slower. "scan" is one `lax.scan` over all steps of a call.
    """
    inputs = training_inputs(job)
    model = _model(job, inputs.layers)
    optimizer = optax.adam(job.rate)
    opt_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)

    def update(model: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any, jax.Array]:
        loss, grads = eqx.filter_value_and_grad(lambda model: mean_loss(job, jax.vmap(model)(x), y))(model)
        updates, opt_state = optimizer.update(grads, opt_state, model)
        return eqx.apply_updates(model, updates), opt_state, loss

    if form == "naive":
        make_step = eqx.filter_jit(update)

        def naive(state: Any, rows: np.ndarray | None) -> Any:
            return make_step(*state, *((x, y) if rows is None else (inputs.x[rows], inputs.y[rows])))[:2]

        compiled = compile_in_stages(make_step, model, opt_state, inputs.x[: job.batch], inputs.y[: job.batch])
        return python_loop(job, inputs, naive, (model, opt_state), to_arrays=_to_arrays, compiled=compiled)

    params, static = eqx.partition(model, eqx.is_array)
    if form == "scan":

        def scan_step(state: Any, x: jax.Array, y: jax.Array) -> Any:
            model, opt_state, _ = update(eqx.combine(state[0], static), state[1], x, y)
            return eqx.filter(model, eqx.is_array), opt_state

        return scanned_loop(job, inputs, scan_step, (params, opt_state), to_arrays=_to_arrays)
    leaves, structure = jax.tree.flatten((params, opt_state))

    def rows_update(leaves: Any, x: jax.Array, y: jax.Array, rows: jax.Array | None) -> tuple[Any, jax.Array]:
        params, opt_state = jax.tree.unflatten(structure, leaves)
        batch = (x, y) if rows is None else (x[rows], y[rows])
        model, opt_state, loss = update(eqx.combine(params, static), opt_state, *batch)
        return jax.tree.leaves((eqx.filter(model, eqx.is_array), opt_state)), loss

    jitted = jax.jit(rows_update, donate_argnums=0)
    rows = None if job.batch is None else np.arange(job.batch, dtype=np.int32)
    compiled = compile_in_stages(jitted, leaves, x, y, rows)

    def fast(leaves: Any, rows: np.ndarray | None) -> Any:
        return jitted(leaves, x, y, rows)[0]

    def to_arrays(leaves: Any) -> list[np.ndarray]:
        return _to_arrays(jax.tree.unflatten(structure, leaves))

    return python_loop(job, inputs, fast, leaves, to_arrays=to_arrays, compiled=compiled)


def _model(job: Training, layers: Layers) -> Any:
    activation = jax.nn.relu if job.activation == "relu" else jnp.tanh
    modules: list[Any] = []
    for w, b in layers:
        linear = eqx.nn.Linear(*w.shape, key=jax.random.key(0))
        linear = eqx.tree_at(lambda layer: (layer.weight, layer.bias), linear, (jnp.array(w.T), jnp.array(b)))
        modules += [linear, eqx.nn.Lambda(activation)]
    return eqx.nn.Sequential(modules[:-1])


def _to_arrays(state: Any) -> list[np.ndarray]:
    layers = state[0].layers[::2]  # skip the activations in between
    return [np.asarray(array) for layer in layers for array in (layer.weight.T, layer.bias)]
