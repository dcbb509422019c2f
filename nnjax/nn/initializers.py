"""The default initialisers: the draws of `jax.nn.initializers`, compiled faster.

Any initialiser of `jax.nn.initializers` goes wherever these go. These draw their numbers flat and reshape them: XLA's
compiler for CPUs unrolls the random generator along a short last axis, and a last layer of 10 classes would take a
second or two to compile, as long as all the rest of a small run.

`inputs` and `outputs` are the true widths of weights that are padded (`mlp(widths=…)`): the variance is that of the
true widths, and the weights beyond them are zero. They may be traced integers.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from nnjax import checks
from nnjax.nn.widths import Width, check_width, inside
from nnjax.types import Initializer, Key

CUT = 0.87962566103423978  # standard deviation of a standard normal that is cut off at ±2


def he_normal(inputs: Width | None = None, outputs: Width | None = None) -> Initializer:
    """Variance 2 / inputs, which keeps the size of activations under ReLU: `jax.nn.initializers.he_normal`.

    Args:
      inputs: true number of inputs of padded weights; None for all.
      outputs: true number of outputs of padded weights; None for all.

    >>> nn.initializers.he_normal()(jax.random.key(0), (3, 2)).shape
    (3, 2)

    Source: He et al. 2015, arXiv:1502.01852.
    """
    return _normal(2.0, "inputs", inputs, outputs)


def lecun_normal(inputs: Width | None = None, outputs: Width | None = None) -> Initializer:
    """Variance 1 / inputs, which keeps the size without an activation: `jax.nn.initializers.lecun_normal`.

    Args:
      inputs: true number of inputs of padded weights; None for all.
      outputs: true number of outputs of padded weights; None for all.

    >>> nn.initializers.lecun_normal()(jax.random.key(0), (3, 2)).shape
    (3, 2)

    Source: LeCun et al. 1998.
    """
    return _normal(1.0, "inputs", inputs, outputs)


def glorot_normal(inputs: Width | None = None, outputs: Width | None = None) -> Initializer:
    """Variance 2 / (inputs + outputs), for tanh and sigmoid: `jax.nn.initializers.glorot_normal`.

    Args:
      inputs: true number of inputs of padded weights; None for all.
      outputs: true number of outputs of padded weights; None for all.

    >>> nn.initializers.glorot_normal()(jax.random.key(0), (3, 2)).shape
    (3, 2)

    Source: Glorot and Bengio 2010.
    """
    return _normal(2.0, "both", inputs, outputs)


def scaled(init: Initializer, factor: float | Array) -> Initializer:
    """Another initialiser's numbers, times a factor.

        w = factor · init(key)

    Args:
      init: any initialiser.
      factor: ≥ 0; may be a traced array, so that `jax.vmap` can sweep it and `jax.grad` differentiate by it.

    Raises:
      ValueError: for a factor out of range.

    >>> small = nn.dense(3, w_init=nn.initializers.scaled(nn.initializers.he_normal(), 0.1))
    >>> small.init(jax.random.key(0), jnp.ones((1, 2)))[0]["w"].shape
    (2, 3)
    """
    factor = checks.in_range("scaled", "factor", factor, "[0, inf)")

    def scaled_init(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return init(key, shape, dtype) * jnp.asarray(factor, dtype)

    return scaled_init


def _normal(scale: float, fan: Literal["inputs", "both"], inputs: Width | None, outputs: Width | None) -> Initializer:
    """Normal numbers cut off at two standard deviations, of variance scale / fan; zero beyond the true widths."""

    def init(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        window = math.prod(shape[:-2])  # of a convolution; 1 for a dense layer
        rows = shape[-2] if inputs is None else check_width("initializers", "inputs", inputs, shape[-2])
        columns = shape[-1] if outputs is None else check_width("initializers", "outputs", outputs, shape[-1])
        number = window * (rows if fan == "inputs" else rows + columns)
        if isinstance(number, int):
            deviation: float | Array = math.sqrt(scale / number)
        else:
            deviation = jnp.sqrt(scale / number.astype(float))
        draws = jax.random.truncated_normal(key, -2, 2, (math.prod(shape),), dtype)
        w = draws.reshape(shape) * jnp.asarray(deviation / CUT, dtype)
        if inputs is None and outputs is None:
            return w
        true = inside(rows, shape[-2])[:, None] & inside(columns, shape[-1])[None]
        return jnp.where(true.reshape((1,) * (len(shape) - 2) + true.shape), w, jnp.zeros_like(w))

    return init
