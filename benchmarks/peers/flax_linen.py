"""Train with Flax linen, using `TrainState` and a jitted step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

from benchmarks.jobs.definitions import Training
from benchmarks.jobs.inputs import training_inputs
from benchmarks.jobs.program import Program
from benchmarks.peers._jax.loss import mean_loss
from benchmarks.peers._jax.python_loop import python_loop
from benchmarks.peers._jax.scanned_loop import scanned_loop
from benchmarks.peers._jax.stages import compile_in_stages

NAME = "Flax linen"
NEEDS = ("flax", "optax")
FORMS = {"training": ("naive", "fast", "scan")}


def training(job: Training, form: str) -> Program:
    """Train with a step as in the library's documentation, in a Python loop or in a scan.

    The form "naive" is the jitted step of the tutorial, called with NumPy arrays. "fast" donates the state and keeps
    the data on the device. Linen's guides show no faster loop, and the documentation of `jax.jit` recommends donation.
    "scan" is one `lax.scan` over all steps of a call.
    """
    inputs = training_inputs(job)
    activation = nn.relu if job.activation == "relu" else nn.tanh
    modules: list[Any] = []
    for width in job.widths[1:]:
        modules += [nn.Dense(width), activation]
    model = nn.Sequential(modules[:-1])
    variables: Any = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, job.widths[0])))
    params = {_name(i): {"kernel": jnp.array(w), "bias": jnp.array(b)} for i, (w, b) in enumerate(inputs.layers)}
    jax.tree.map(lambda expected, actual: None, variables["params"], params)  # raises if the structures differ
    state: Any = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(job.rate))
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)

    def train_step(state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        def loss_fn(params: Any) -> jax.Array:
            return mean_loss(job, state.apply_fn({"params": params}, x), y)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss

    if form == "scan":
        return scanned_loop(job, inputs, lambda state, x, y: train_step(state, x, y)[0], state, to_arrays=_to_arrays)

    def rows_step(state: Any, x: jax.Array, y: jax.Array, rows: jax.Array | None) -> tuple[Any, jax.Array]:
        return train_step(state, *((x, y) if rows is None else (x[rows], y[rows])))

    def naive(state: Any, rows: np.ndarray | None) -> Any:
        return naive_step(state, *((x, y) if rows is None else (inputs.x[rows], inputs.y[rows])))[0]

    def fast(state: Any, rows: np.ndarray | None) -> Any:
        return fast_step(state, x, y, rows)[0]

    naive_step, fast_step = jax.jit(train_step), jax.jit(rows_step, donate_argnums=0)
    if form == "naive":
        compiled = compile_in_stages(naive_step, state, x[: job.batch], y[: job.batch])
    else:
        rows = None if job.batch is None else np.arange(job.batch, dtype=np.int32)
        compiled = compile_in_stages(fast_step, state, x, y, rows)
    step = naive if form == "naive" else fast
    return python_loop(job, inputs, step, state, to_arrays=_to_arrays, compiled=compiled)


def _name(i: int) -> str:
    return f"layers_{2 * i}"  # numbers include the activations


def _to_arrays(state: Any) -> list[np.ndarray]:
    layers = [state.params[_name(i)] for i in range(len(state.params))]
    return [np.asarray(layer[name]) for layer in layers for name in ("kernel", "bias")]
