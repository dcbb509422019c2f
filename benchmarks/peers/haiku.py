"""Train with Haiku, using `hk.transform` and a jitted step."""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.jobs.definitions import Training
from benchmarks.jobs.inputs import training_inputs
from benchmarks.jobs.program import Program
from benchmarks.peers._jax.loss import mean_loss
from benchmarks.peers._jax.python_loop import python_loop
from benchmarks.peers._jax.scanned_loop import scanned_loop
from benchmarks.peers._jax.stages import compile_in_stages

NAME = "Haiku"
NEEDS = ("haiku", "optax")
FORMS = {"training": ("naive", "fast", "scan")}


def training(job: Training, form: str) -> Program:
    """Train with a step as in the library's documentation, in a Python loop or in a scan.

    The form "naive" is the jitted update of the MNIST example, called with NumPy arrays. "fast" donates the state and
    keeps the data on the device. Haiku's documentation shows no faster loop, and JAX's documentation recommends
    donation. "scan" is one `lax.scan` over all steps of a call.
    """
    inputs = training_inputs(job)
    activation = jax.nn.relu if job.activation == "relu" else jnp.tanh

    def net_fn(x: jax.Array) -> jax.Array:
        modules: list[Any] = []
        for width in job.widths[1:]:
            modules += [hk.Linear(width), activation]
        return hk.Sequential(modules[:-1])(x)

    net: Any = hk.without_apply_rng(hk.transform(net_fn))
    optimizer = optax.adam(job.rate)
    params = {_name(i): {"w": jnp.array(w), "b": jnp.array(b)} for i, (w, b) in enumerate(inputs.layers)}
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, job.widths[0])))
    jax.tree.map(lambda expected, actual: None, shapes, params)  # raises if the structures differ
    state: Any = params, optimizer.init(params)
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)

    def update(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any]:
        grads = jax.grad(lambda params: mean_loss(job, net.apply(params, x), y))(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state

    if form == "scan":

        def scan_step(state: Any, x: jax.Array, y: jax.Array) -> Any:
            params, opt_state = state
            return update(params, opt_state, x, y)

        return scanned_loop(job, inputs, scan_step, state, to_arrays=_to_arrays)

    def rows_update(params: Any, opt_state: Any, x: jax.Array, y: jax.Array, rows: Any) -> tuple[Any, Any]:
        return update(params, opt_state, *((x, y) if rows is None else (x[rows], y[rows])))

    def naive(state: Any, rows: np.ndarray | None) -> Any:
        return naive_update(*state, *((x, y) if rows is None else (inputs.x[rows], inputs.y[rows])))

    def fast(state: Any, rows: np.ndarray | None) -> Any:
        return fast_update(*state, x, y, rows)

    naive_update, fast_update = jax.jit(update), jax.jit(rows_update, donate_argnums=(0, 1))
    if form == "naive":
        compiled = compile_in_stages(naive_update, *state, x[: job.batch], y[: job.batch])
    else:
        rows = None if job.batch is None else np.arange(job.batch, dtype=np.int32)
        compiled = compile_in_stages(fast_update, *state, x, y, rows)
    step = naive if form == "naive" else fast
    return python_loop(job, inputs, step, state, to_arrays=_to_arrays, compiled=compiled)


def _name(i: int) -> str:
    return f"linear_{i}" if i else "linear"


def _to_arrays(state: Any) -> list[np.ndarray]:
    layers = [state[0][_name(i)] for i in range(len(state[0]))]
    return [np.asarray(layer[name]) for layer in layers for name in ("w", "b")]
