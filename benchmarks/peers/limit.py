"""No peer but the limit: what this machine needs for the matrix products and the traffic that nobody can avoid."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.jobs.definitions import (
    Calibrating,
    Dispatching,
    Optimizing,
    Program,
    Training,
    optimizing_inputs,
    training_inputs,
)
from benchmarks.peers._jax.dispatch import calls
from benchmarks.peers._jax.optimizer import MOMENTS
from benchmarks.peers._jax.stages import compiled

NAME = "limit"
NEEDS = ("jax",)
FORMS = {
    "training": ("rows", "features"),
    "optimizer": ("one array",),
    "dispatch": ("one array",),
    "calibrate": ("measured",),
}


def calibrate(job: Calibrating, form: str) -> Program:
    """Square products, a copy, or the smallest program there is; on random numbers.

    Raises:
      ValueError: for tf32 on a device that has none.
    """
    if job.dtype == "tf32" and jax.default_backend() != "gpu":
        raise ValueError("tf32 is a format of NVIDIA's GPUs alone")
    dtype = "float32" if job.dtype == "tf32" else job.dtype
    precision = jax.lax.DotAlgorithmPreset.TF32_TF32_F32 if job.dtype == "tf32" else None
    key = jax.random.key(0)
    shape = (job.size, job.size) if job.what == "gemm" else (job.size,)
    repeat = 4 if job.what == "gemm" else 1

    def body(x: jax.Array, w: jax.Array) -> jax.Array:
        if job.what == "gemm":  # divided by the root of its size, a power of a random matrix stays finite
            return jnp.matmul(x, w, precision=precision) * jnp.asarray(job.size**-0.5, x.dtype)
        return x + w[0] if job.what == "copy" else x + w

    x, w = (jax.random.normal(k, shape, dtype) for k in jax.random.split(key))
    jitted = jax.jit(lambda x, w: jax.lax.fori_loop(0, repeat, lambda _, x: body(x, w), x), donate_argnums=0)
    program = compiled(jitted, x, w)
    return Program(
        state=x,
        call=lambda x: program.call(x, w),
        block=jax.block_until_ready,
        error=lambda x: 0.0 if jnp.isfinite(x).all() else np.inf,
        units=repeat,
        stages=program.stages,
        memory=program.memory,
        flops=2 * job.size**3 if job.what == "gemm" else 0,
        bytes=2 * job.size * x.dtype.itemsize if job.what == "copy" else 0,
    )


def training(job: Training, form: str) -> Program:
    """Per step: the products of forward and backward pass, tanh if the network has it, and Adam's traffic.

    rows: examples are rows, x w, as in the library. features: they are columns, w x.
    """
    inputs = training_inputs(job)
    rng = np.random.default_rng(2)
    batch = job.batch or job.rows
    layers = []
    for w, _ in inputs.layers:
        x = rng.normal(size=(batch, w.shape[0])).astype(np.float32)
        mean, square = rng.normal(size=(2, *w.shape)).astype(np.float32)
        arrays = (x, w, mean, square) if form == "rows" else (x.T, w.T, mean.T, square.T)
        layers.append(tuple(jnp.array(array) for array in arrays))

    def step(layers: Any, _: None) -> tuple[Any, None]:
        return [_layer(job, form, i, layer) for i, layer in enumerate(layers)], None

    jitted = jax.jit(lambda layers: jax.lax.scan(step, layers, length=job.steps)[0], donate_argnums=0)
    program = compiled(jitted, layers)
    return Program(
        state=layers,
        call=program.call,
        block=jax.block_until_ready,
        error=lambda layers: 0.0 if all(jnp.isfinite(array).all() for layer in layers for array in layer) else np.inf,
        units=job.steps,
        stages=program.stages,
        memory=program.memory,
    )


def optimizer(job: Optimizing, form: str) -> Program:
    """Read the gradients, read and write parameters and moments: each as one array, with hardly any arithmetic."""
    params, grads = (jnp.asarray(np.concatenate(arrays, axis=-1)) for arrays in optimizing_inputs(job))
    state = tuple(jnp.copy(params) for _ in range(1 + MOMENTS[job.rule]))

    def update(state: Any, grads: jax.Array) -> Any:
        moved = [array + 1e-9 * grads for array in state[1:]]
        return (state[0] + 1e-9 * sum(moved, grads), *moved)

    def updates(state: Any, grads: jax.Array) -> Any:
        return jax.lax.scan(lambda state, t: (update(state, grads[t % 2]), None), state, jnp.arange(job.steps))[0]

    program = compiled(jax.jit(updates, donate_argnums=0), state, grads)
    return Program(
        state=state,
        call=lambda state: program.call(state, grads),
        block=jax.block_until_ready,
        error=lambda state: 0.0 if jnp.isfinite(state[0]).all() else np.inf,
        units=job.steps,
        stages=program.stages,
        memory=program.memory,
    )


def dispatch(job: Dispatching, form: str) -> Program:
    """As many numbers in one array."""
    one = Dispatching(1, job.leaves * job.size, job.calls)
    return calls(one, lambda array: array + 1, jnp.zeros(one.size))


def _layer(job: Training, form: str, i: int, layer: Any) -> Any:
    """One layer's share. Numbers of the results go into the operands, so that no iteration can be left out."""
    x, w, mean, square = layer
    y = x @ w if form == "rows" else w @ x
    if job.activation == "tanh" and i < len(job.widths) - 2:
        y = jnp.tanh(y)
    grad = x.T @ y if form == "rows" else y @ x.T
    if i:
        back = y @ w.T if form == "rows" else w.T @ y
        x = x.at[0, 0].set(1e-6 * back[0, 0])
    else:
        x = x.at[0, 0].set(1e-6 * y[0, 0])
    mean, square = mean + 1e-9 * grad, square - 1e-9 * grad
    return x, w + 1e-9 * (mean * square), mean, square
