"""No peer but the limit: what this machine needs for the matrix products and the traffic that nobody can avoid."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.compiled import compiled
from benchmarks.work import Program, Training, training_inputs

NAME = "limit"
NEEDS = ("jax",)
FORMS = {"training": ("rows", "features")}


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
        error=lambda layers: 0.0 if all(jnp.isfinite(array).all() for layer in layers for array in layer) else 2.0,
        units=job.steps,
        stages=program.stages,
        memory=program.memory,
    )


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
