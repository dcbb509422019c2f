"""JAX's own example library, with the Adam that comes with it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.example_libraries import optimizers, stax

from benchmarks.jobs.definitions import Program, Training, training_inputs
from benchmarks.jobs.python_loop import loop
from benchmarks.peers._jax.stages import compiled
from benchmarks.peers.plain_jax import loss_of

NAME = "stax"
NEEDS = ("jax", "optax")
FORMS = {"training": ("naive", "fast")}


def training(job: Training, form: str) -> Program:
    """naive: the MNIST example's jitted update, fed with NumPy rows. fast: its state is donated.

    Stax has no guide to performance; donation is what `jax.jit`'s documents recommend. The data stay on the device.
    """
    inputs = training_inputs(job)
    activation = stax.Relu if job.activation == "relu" else stax.Tanh
    parts: list[Any] = []
    for width in job.widths[1:]:
        parts += [stax.Dense(width), activation]
    init_random_params, predict = stax.serial(*parts[:-1])
    params = jax.eval_shape(lambda key: init_random_params(key, (-1, job.widths[0]))[1], jax.random.key(0))
    params[::2] = [(jnp.array(w), jnp.array(b)) for w, b in inputs.layers]  # every other is an activation
    opt_init, opt_update, get_params = optimizers.adam(job.rate)
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)

    def update(i: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        params = get_params(opt_state)
        return opt_update(i, jax.grad(lambda params: loss_of(job, predict(params, x), y))(params), opt_state)

    def rows_update(i: Any, opt_state: Any, x: jax.Array, y: jax.Array, rows: jax.Array | None) -> Any:
        return update(i, opt_state, *((x, y) if rows is None else (x[rows], y[rows])))

    def naive(state: Any, rows: np.ndarray | None) -> Any:
        i, opt_state = state
        return i + 1, naive_update(i, opt_state, *((x, y) if rows is None else (inputs.x[rows], inputs.y[rows])))

    def fast(state: Any, rows: np.ndarray | None) -> Any:
        i, opt_state = state
        return i + 1, fast_update(i, opt_state, x, y, rows)

    def found(state: Any) -> list[np.ndarray]:
        return [np.asarray(part) for layer in get_params(state[1])[::2] for part in layer]

    naive_update, fast_update = jax.jit(update), jax.jit(rows_update, donate_argnums=1)
    opt_state = opt_init(params)
    if form == "naive":
        first = compiled(naive_update, 0, opt_state, x[: job.batch], y[: job.batch])
    else:
        rows = None if job.batch is None else np.arange(job.batch, dtype=np.int32)
        first = compiled(fast_update, 0, opt_state, x, y, rows)
    step = naive if form == "naive" else fast
    return loop(job, inputs, step, (0, opt_state), found, jax.block_until_ready, first.stages, first.memory)
