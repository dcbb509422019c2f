"""Train a deep residual network, with a scan or a Python loop over the blocks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.jobs.definitions import DeepNetwork
from benchmarks.jobs.inputs import deep_network_inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference_deep_network import deep_network_error
from benchmarks.peers._jax.stages import compile_in_stages

MOST_INDEXED = 250  # maximum number of blocks that compile within a minute; the time grows with their square


def deep_network(job: DeepNetwork, form: str) -> Program:
    """Train with one of three loops over the blocks.

    The form "scan" uses `lax.scan` over stacked parameters. "indexed" is a Python loop over `w[i]` of stacked
    parameters. "unrolled list" is a Python loop over a list of arrays.

    Raises:
      ValueError: if the form is "indexed" and there are more than `MOST_INDEXED` blocks.
    """
    if form == "indexed" and job.blocks > MOST_INDEXED:
        raise ValueError(f"{job.blocks} indexed blocks take minutes to compile; at most {MOST_INDEXED} are measured")
    inputs = deep_network_inputs(job)
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)
    params: Any = jax.tree.map(jnp.asarray, inputs.layers[0])
    if form == "unrolled list":
        params = list(zip(*params, strict=True))

    def block(z: jax.Array, layer: Any) -> tuple[jax.Array, None]:
        w, b = layer
        return z + jax.nn.relu(z @ w + b), None

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        if form == "scan":
            return ((jax.lax.scan(block, x, params)[0] - y) ** 2).sum(-1).mean()
        layers = params if form == "unrolled list" else [(params[0][i], params[1][i]) for i in range(job.blocks)]
        for layer in layers:
            x, _ = block(x, layer)
        return ((x - y) ** 2).sum(-1).mean()

    def steps(params: Any, x: jax.Array, y: jax.Array) -> Any:
        def step(params: Any, _: None) -> tuple[Any, jax.Array]:
            value, grads = jax.value_and_grad(loss)(params, x, y)
            return jax.tree.map(lambda p, g: p - job.rate * g, params, grads), value

        return jax.lax.scan(step, params, length=job.steps)

    def error(params: Any) -> float:
        w, b = [np.stack(arrays) for arrays in zip(*params, strict=True)] if form == "unrolled list" else params
        return deep_network_error(job, np.asarray(w), np.asarray(b))

    compiled = compile_in_stages(jax.jit(steps, donate_argnums=0), params, x, y)
    return Program(
        state=params,
        call=lambda params: compiled.call(params, x, y)[0],
        block=jax.block_until_ready,
        error=error,
        units=job.steps,
        stages=compiled.stages,
        memory=compiled.memory,
    )
