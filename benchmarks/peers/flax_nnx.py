"""Train with Flax nnx, using stateful objects and a step that updates them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.jobs.definitions import Training
from benchmarks.jobs.inputs import Layers, training_inputs
from benchmarks.jobs.program import Program
from benchmarks.peers._jax.loss import mean_loss
from benchmarks.peers._jax.python_loop import python_loop
from benchmarks.peers._jax.scanned_loop import scanned_loop
from benchmarks.peers._jax.stages import compile_in_stages

NAME = "Flax nnx"
NEEDS = ("flax", "optax")
FORMS = {"training": ("naive", "fast", "scan")}


def training(job: Training, form: str) -> Program:
    """Train with a step as in the library's documentation, in a Python loop or in a scan.

    The form "naive" uses `nnx.jit` as in the tutorial, called with NumPy arrays. "fast" uses `nnx.jit_partial` with
    donation, and the data on the device. The guide "Performance considerations" shows a cached partial function, and a
    functional loop with `split`, `jax.jit` and `merge`. `jit_partial`, the cached partial function for pytrees, is
    faster than both. "scan" is one `lax.scan` of the functional step over all steps of a call.
    """
    inputs = training_inputs(job)
    model = _model(job, inputs.layers)
    optimizer = nnx.Optimizer(model, optax.adam(job.rate), wrt=nnx.Param)
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)

    def update(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda model: mean_loss(job, model(x), y))(model)
        optimizer.update(model, grads)
        return loss

    if form == "scan":
        definition, leaves = nnx.split((model, optimizer))

        def scan_step(leaves: Any, x: jax.Array, y: jax.Array) -> Any:
            modules = nnx.merge(definition, leaves)
            update(*modules, x, y)
            return nnx.state(modules)

        def to_arrays(leaves: Any) -> list[np.ndarray]:
            return _to_arrays(nnx.merge(definition, leaves))

        return scanned_loop(job, inputs, scan_step, leaves, to_arrays=to_arrays)

    def rows_update(model: Any, optimizer: Any, x: jax.Array, y: jax.Array, rows: jax.Array | None) -> jax.Array:
        return update(model, optimizer, *((x, y) if rows is None else (x[rows], y[rows])))

    def naive(state: Any, rows: np.ndarray | None) -> Any:
        naive_step(*state, *((x, y) if rows is None else (inputs.x[rows], inputs.y[rows])))
        return state  # model and optimizer are updated in place

    def fast(state: Any, rows: np.ndarray | None) -> Any:
        fast_step(x, y, rows)
        return state

    if form == "naive":
        naive_step = nnx.jit(update)
        compiled = compile_in_stages(naive_step, model, optimizer, inputs.x[: job.batch], inputs.y[: job.batch])
    else:
        # in the compiled program, model and optimizer together are the first argument
        fast_step = nnx.jit_partial(rows_update, model, optimizer, graph=False, donate_argnums=0)
        rows = None if job.batch is None else np.arange(job.batch, dtype=np.int32)
        compiled = compile_in_stages(fast_step, x, y, rows)

    def block(state: Any) -> None:
        jax.block_until_ready(nnx.state(state))

    step, state = naive if form == "naive" else fast, (model, optimizer)
    return python_loop(job, inputs, step, state, to_arrays=_to_arrays, compiled=compiled, block=block)


def _model(job: Training, layers: Layers) -> Any:
    activation = nnx.relu if job.activation == "relu" else nnx.tanh
    modules: list[Any] = []
    for w, b in layers:
        linear: Any = nnx.Linear(*w.shape, rngs=nnx.Rngs(0))
        linear.kernel[...], linear.bias[...] = jnp.array(w), jnp.array(b)
        modules += [linear, activation]
    return nnx.Sequential(*modules[:-1])


def _to_arrays(state: Any) -> list[np.ndarray]:
    layers = state[0].layers[::2]  # skip the activations in between
    return [np.asarray(array[...]) for layer in layers for array in (layer.kernel, layer.bias)]
