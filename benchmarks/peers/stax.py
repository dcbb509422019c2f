"""Train with stax, JAX's example library, and the Adam of `jax.example_libraries.optimizers`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.example_libraries import optimizers, stax

from benchmarks.jobs.definitions import Training
from benchmarks.jobs.inputs import training_inputs
from benchmarks.jobs.program import Program
from benchmarks.peers._jax.loss import mean_loss
from benchmarks.peers._jax.python_loop import python_loop
from benchmarks.peers._jax.scanned_loop import scanned_loop
from benchmarks.peers._jax.stages import compile_in_stages

NAME = "stax"
NEEDS = ("jax", "optax")
FORMS = {"training": ("naive", "fast", "scan")}


def training(job: Training, form: str) -> Program:
    """Train with a step as in the library's documentation, in a Python loop or in a scan.

    The form "naive" is the jitted update of the MNIST example, called with NumPy arrays. "fast" donates the state and
    keeps the data on the device. stax has no performance guide, and the documentation of `jax.jit` recommends donation.
    "scan" is one `lax.scan` over all steps of a call.
    """
    inputs = training_inputs(job)
    activation = stax.Relu if job.activation == "relu" else stax.Tanh
    layers: list[Any] = []
    for width in job.widths[1:]:
        layers += [stax.Dense(width), activation]
    init_random_params, predict = stax.serial(*layers[:-1])
    params = jax.eval_shape(lambda key: init_random_params(key, (-1, job.widths[0]))[1], jax.random.key(0))
    params[::2] = [(jnp.array(w), jnp.array(b)) for w, b in inputs.layers]  # activations have no parameters
    opt_init, opt_update, get_params = optimizers.adam(job.rate)
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)

    def update(i: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        params = get_params(opt_state)
        return opt_update(i, jax.grad(lambda params: mean_loss(job, predict(params, x), y))(params), opt_state)

    def rows_update(i: Any, opt_state: Any, x: jax.Array, y: jax.Array, rows: jax.Array | None) -> Any:
        return update(i, opt_state, *((x, y) if rows is None else (x[rows], y[rows])))

    def naive(state: Any, rows: np.ndarray | None) -> Any:
        i, opt_state = state
        return i + 1, naive_update(i, opt_state, *((x, y) if rows is None else (inputs.x[rows], inputs.y[rows])))

    def fast(state: Any, rows: np.ndarray | None) -> Any:
        i, opt_state = state
        return i + 1, fast_update(i, opt_state, x, y, rows)

    def to_arrays(state: Any) -> list[np.ndarray]:
        return [np.asarray(array) for layer in get_params(state[1])[::2] for array in layer]

    opt_state = opt_init(params)
    if form == "scan":

        def scan_step(state: Any, x: jax.Array, y: jax.Array) -> Any:
            i, opt_state = state
            return i + 1, update(i, opt_state, x, y)

        start = jnp.zeros((), jnp.int32), opt_state
        return scanned_loop(job, inputs, scan_step, start, to_arrays=to_arrays)
    naive_update, fast_update = jax.jit(update), jax.jit(rows_update, donate_argnums=1)
    if form == "naive":
        compiled = compile_in_stages(naive_update, 0, opt_state, x[: job.batch], y[: job.batch])
    else:
        rows = None if job.batch is None else np.arange(job.batch, dtype=np.int32)
        compiled = compile_in_stages(fast_update, 0, opt_state, x, y, rows)
    step = naive if form == "naive" else fast
    return python_loop(job, inputs, step, (0, opt_state), to_arrays=to_arrays, compiled=compiled)
