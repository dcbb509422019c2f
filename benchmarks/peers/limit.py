"""Measure the limit: XLA's time for the matrix products and memory traffic that no library can avoid."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.jobs.definitions import Calibration, Dispatch, Training, Updates
from benchmarks.jobs.inputs import training_inputs, update_inputs
from benchmarks.jobs.program import Program
from benchmarks.peers._jax.dispatch import jitted_calls
from benchmarks.peers._jax.stages import compile_in_stages
from benchmarks.peers._jax.updates import MOMENTS

NAME = "limit"
NEEDS = ("jax",)
FORMS = {
    "training": ("rows", "features"),
    "updates": ("one array",),
    "dispatch": ("one array",),
    "calibration": ("measured",),
}


def calibration(job: Calibration, form: str) -> Program:
    """Multiply square matrices, copy memory, or run a tiny program, on random numbers.

    Raises:
      ValueError: if the precision is tf32 and the device is not a GPU.
    """
    if job.dtype == "tf32" and jax.default_backend() != "gpu":
        raise ValueError("tf32 exists only on NVIDIA GPUs")
    dtype = "float32" if job.dtype == "tf32" else job.dtype
    precision = jax.lax.DotAlgorithmPreset.TF32_TF32_F32 if job.dtype == "tf32" else None
    key = jax.random.key(0)
    shape = (job.size, job.size) if job.what == "gemm" else (job.size,)
    repeat = 4 if job.what == "gemm" else 1

    def body(x: jax.Array, w: jax.Array) -> jax.Array:
        if job.what == "gemm":  # the factor keeps the powers of a random matrix finite
            return jnp.matmul(x, w, precision=precision) * jnp.asarray(job.size**-0.5, x.dtype)
        return x + w[0] if job.what == "copy" else x + w

    x, w = (jax.random.normal(k, shape, dtype) for k in jax.random.split(key))
    jitted = jax.jit(lambda x, w: jax.lax.fori_loop(0, repeat, lambda _, x: body(x, w), x), donate_argnums=0)
    compiled = compile_in_stages(jitted, x, w)
    return Program(
        state=x,
        call=lambda x: compiled.call(x, w),
        block=jax.block_until_ready,
        error=lambda x: 0.0 if jnp.isfinite(x).all() else np.inf,
        units=repeat,
        stages=compiled.stages,
        memory=compiled.memory,
        flops=2 * job.size**3 if job.what == "gemm" else 0,
        bytes=2 * job.size * x.dtype.itemsize if job.what == "copy" else 0,
    )


def training(job: Training, form: str) -> Program:
    """Run only the matrix products of both passes, tanh if the network uses it, and the memory traffic of Adam.

    In the form "rows", examples are rows (x w), as in nnjax. In "features", they are columns (w x).
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
        return [_layer_step(job, form, i, layer) for i, layer in enumerate(layers)], None

    jitted = jax.jit(lambda layers: jax.lax.scan(step, layers, length=job.steps)[0], donate_argnums=0)
    compiled = compile_in_stages(jitted, layers)
    return Program(
        state=layers,
        call=compiled.call,
        block=jax.block_until_ready,
        error=lambda layers: 0.0 if all(jnp.isfinite(array).all() for layer in layers for array in layer) else np.inf,
        units=job.steps,
        stages=compiled.stages,
        memory=compiled.memory,
    )


def _layer_step(job: Training, form: str, i: int, layer: Any) -> Any:
    """Compute one layer. Results feed back into the operands, so XLA cannot remove an iteration."""
    x, w, mean, square = layer
    y = x @ w if form == "rows" else w @ x
    if job.activation == "tanh" and i < len(job.widths) - 2:
        y = jnp.tanh(y)
    grad = x.T @ y if form == "rows" else y @ x.T
    if i:
        input_grad = y @ w.T if form == "rows" else w.T @ y
        x = x.at[0, 0].set(1e-6 * input_grad[0, 0])
    else:
        x = x.at[0, 0].set(1e-6 * y[0, 0])
    mean, square = mean + 1e-9 * grad, square - 1e-9 * grad
    return x, w + 1e-9 * (mean * square), mean, square


def updates(job: Updates, form: str) -> Program:
    """Read the gradients, and read and write parameters and moments, each as one array with almost no arithmetic."""
    params, both_grads = (jnp.asarray(np.concatenate(arrays, axis=-1)) for arrays in update_inputs(job))
    state = tuple(jnp.copy(params) for _ in range(1 + MOMENTS[job.rule]))

    def update(state: Any, grads: jax.Array) -> Any:
        moments = [array + 1e-9 * grads for array in state[1:]]
        return (state[0] + 1e-9 * sum(moments, grads), *moments)

    def scan(state: Any, both_grads: jax.Array) -> Any:
        return jax.lax.scan(lambda state, t: (update(state, both_grads[t % 2]), None), state, jnp.arange(job.steps))[0]

    compiled = compile_in_stages(jax.jit(scan, donate_argnums=0), state, both_grads)
    return Program(
        state=state,
        call=lambda state: compiled.call(state, both_grads),
        block=jax.block_until_ready,
        error=lambda state: 0.0 if jnp.isfinite(state[0]).all() else np.inf,
        units=job.steps,
        stages=compiled.stages,
        memory=compiled.memory,
    )


def dispatch(job: Dispatch, form: str) -> Program:
    """Call a jitted `array + 1` on a single array with the elements of all arrays of the job."""
    single = Dispatch(leaves=1, size=job.leaves * job.size, calls=job.calls)
    return jitted_calls(single, lambda array: array + 1, jnp.zeros(single.size))
