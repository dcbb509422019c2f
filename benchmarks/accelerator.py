"""Measure settings that matter on a GPU or TPU in two minutes: `python -m benchmarks.accelerator`.

Times are medians of five calls, except those of `fit` and of compilation. `python -m benchmarks` compares nnjax with
other libraries.
"""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp

from nnjax import losses, nn, optim, train
from nnjax.data import Data
from nnjax.train.engine import ensemble

KEY = jax.random.key(0)
PRODUCTS = 20  # in one program


def seconds(function: Callable[[], Any], repeats: int = 5) -> float:
    """Return the median duration of a call in seconds, after a first call that compiles."""
    jax.block_until_ready(function())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return median(times)


def examples(rows: int, features: int) -> Data:
    """Return random inputs and labels from 10 classes."""
    return Data(jax.random.normal(KEY, (rows, features)), jax.random.randint(KEY, (rows,), 0, 10))


def step_seconds(run: train.Run, data: Data, steps: int) -> float:
    """Return the seconds per step when the steps run in a scan."""
    program = jax.jit(partial(run.steps, n=steps))
    ts = jax.jit(run.init)(KEY, data)
    return seconds(lambda: program(ts, data)) / steps


def make_run(net: nn.Layer, batch: int) -> train.Run:
    """Return a run with cross-entropy and Adam."""
    return train.Run(net, losses.cross_entropy, optim.adam(1e-3), batch_size=batch)


def fit_against_scan(size: int) -> Iterator[str]:
    """Yield the time per step of a scan, and of `fit` for several numbers of steps per block."""
    data, run = examples(1792, 64), make_run(nn.mlp([32], 10), 32)
    yield f"64-32-10, batch 32, scan: {step_seconds(run, data, 28 * size) * 1e6:.1f} µs per step"
    default = ensemble.ACCELERATOR_BLOCK
    for block in (4, default, 64):
        ensemble.ACCELERATOR_BLOCK = block
        result = train.fit(run, data, epochs=size, progress=False)
        micros = result.seconds.train / int(result.ts.step) * 1e6
        yield f"64-32-10, batch 32, fit in blocks of {block}: {micros:.1f} µs per step"
    ensemble.ACCELERATOR_BLOCK = default


def unrolled_copies(size: int) -> Iterator[str]:
    """Yield the time per step and the total time with compilation of `repeat`, for several values of `unroll`."""
    data = examples(256, 64)
    for unroll in (1, 4, None):
        block = nn.residual(nn.layer_norm(), nn.dense(64), jax.nn.relu)
        run = make_run(nn.serial(nn.repeat(10 * size, block, unroll=unroll), nn.dense(10)), 32)
        start = time.perf_counter()
        micros = step_seconds(run, data, 10) * 1e6
        yield f"repeat({10 * size}, unroll={unroll}): {micros:.0f} µs per step; all {time.perf_counter() - start:.1f} s"


@jax.jit
def products(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return a·b·b·…, as many products in one program that its launch takes no noticeable part of the time."""
    return jax.lax.fori_loop(0, PRODUCTS, lambda _, a: a @ b, a)


def half_precision(size: int) -> Iterator[str]:
    """Yield the throughput of networks in bfloat16, also relative to a matrix product of the same width."""
    for width, batch in ((128 * size, 512 * size), (512 * size, 2048 * size)):
        a = jax.random.normal(KEY, (batch, width), jnp.bfloat16)
        b = jax.random.normal(KEY, (width, width), jnp.bfloat16) * width**-0.5  # so that a·b·b·… stays finite
        limit = 2 * batch * width**2 * PRODUCTS / seconds(partial(products, a, b))
        run = make_run(nn.with_precision(nn.mlp([width, width], 10)), batch)
        flops = 6 * batch * (784 * width + width**2 + 10 * width)
        rate = flops / step_seconds(run, examples(2 * batch, 784), 20)
        name = f"784-{width}-{width}-10, batch {batch}, bfloat16"
        yield f"{name}: {rate / 1e12:.3g} TFLOP/s, {rate / limit:.0%} of a product ({limit / 1e12:.3g})"


def attention(size: int) -> Iterator[str]:
    """Yield the time of the gradient of attention, for nnjax and for `jax.nn.dot_product_attention`."""
    x = jax.random.normal(KEY, (4, 128 * size, 512))
    layer = nn.with_precision(nn.multi_head_attention(8, causal=True))
    params, state = layer.init(KEY, x)

    def total(params: Any, x: jax.Array) -> jax.Array:
        return jnp.square(layer.apply(params, state, x, train=True)[0]).sum()

    time_of = seconds(partial(jax.jit(jax.grad(total)), params, x))
    yield f"multi_head_attention, {x.shape[1]} positions, with projections: {time_of * 1e3:.2f} ms"
    heads = x.reshape(*x.shape[:2], 8, 64).astype(jnp.bfloat16)
    for form in ("xla", "cudnn"):
        attend = partial(jax.nn.dot_product_attention, is_causal=True, implementation=form)

        def fused(q: jax.Array, k: jax.Array, attend: Any = attend) -> jax.Array:
            return jnp.square(attend(q, k, k).astype(jnp.float32)).sum()

        try:
            time_of = seconds(partial(jax.jit(jax.grad(fused)), heads, heads))
            yield f"dot_product_attention, {form}, without projections: {time_of * 1e3:.2f} ms"
        except Exception as error:  # for example, without cuDNN
            yield f"dot_product_attention, {form}: {str(error).splitlines()[0]:.60}"


def main(size: int = 8) -> None:
    """Print one line per setting; `size` scales the amount of work."""
    print(jax.devices()[0].device_kind, jax.__version__)
    for part in (fit_against_scan, unrolled_copies, half_precision, attention):
        for line in part(size):
            print(line, flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
