"""The default initialisers: the draws of `jax.nn.initializers`, compiled faster.

Any initialiser of `jax.nn.initializers` goes wherever these go. These draw their numbers flat and reshape them: XLA's
compiler for CPUs unrolls the random generator along a short last axis, and a last layer of 10 classes would take a
second or two to compile, as long as all the rest of a small run.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from nnjax.types import Initializer, Key

CUT = 0.87962566103423978  # standard deviation of a standard normal that is cut off at ±2


def he_normal() -> Initializer:
    """Variance 2 / inputs, which keeps the size of activations under ReLU: `jax.nn.initializers.he_normal`.

    >>> nn.initializers.he_normal()(jax.random.key(0), (3, 2)).shape
    (3, 2)

    Source: He et al. 2015, arXiv:1502.01852.
    """
    return _scaled(2.0, "inputs")


def lecun_normal() -> Initializer:
    """Variance 1 / inputs, which keeps the size without an activation: `jax.nn.initializers.lecun_normal`.

    >>> nn.initializers.lecun_normal()(jax.random.key(0), (3, 2)).shape
    (3, 2)

    Source: LeCun et al. 1998.
    """
    return _scaled(1.0, "inputs")


def glorot_normal() -> Initializer:
    """Variance 2 / (inputs + outputs), for tanh and sigmoid: `jax.nn.initializers.glorot_normal`.

    >>> nn.initializers.glorot_normal()(jax.random.key(0), (3, 2)).shape
    (3, 2)

    Source: Glorot and Bengio 2010.
    """
    return _scaled(1.0, "mean")


def _scaled(scale: float, fan: Literal["inputs", "mean"]) -> Initializer:
    """Normal numbers cut off at two standard deviations, of variance scale / fan."""

    def init(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        window = math.prod(shape[:-2])  # of a convolution; 1 for a dense layer
        inputs, outputs = shape[-2] * window, shape[-1] * window
        variance = scale / (inputs if fan == "inputs" else (inputs + outputs) / 2)
        draws = jax.random.truncated_normal(key, -2, 2, (math.prod(shape),), dtype)
        return draws.reshape(shape) * jnp.asarray(math.sqrt(variance) / CUT, dtype)

    return init
