"""Initialise weights with the same distributions as in `jax.nn.initializers`, but compile faster.

Any initialiser from `jax.nn.initializers` can replace these. They draw a flat array and reshape it, because XLA's CPU
compiler unrolls the random number generator along a short last axis. A last layer with 10 classes would take one to two
seconds to compile, about as long as the rest of a small run.
"""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from nnjax import checks
from nnjax.nn.widths import Width, check_width, keep_block, narrow_index
from nnjax.types import Initializer, Key

Activation = Callable[[Array], Array]
CUT = 0.87962566103423978  # standard deviation of a standard normal truncated at ±2


def he_normal() -> Initializer:
    """Return He's initialiser, with variance 2 / inputs, which preserves the scale of activations under ReLU.

    >>> nn.initializers.he_normal()(jax.random.key(0), (3, 2)).shape
    (3, 2)

    Source: He et al. 2015, arXiv:1502.01852.
    """
    return _truncated_normal(2.0, "inputs")


def lecun_normal() -> Initializer:
    """Return LeCun's initialiser, with variance 1 / inputs, which preserves the scale if no activation follows.

    >>> nn.initializers.lecun_normal()(jax.random.key(0), (3, 2)).shape
    (3, 2)

    Source: LeCun et al. 1998.
    """
    return _truncated_normal(1.0, "inputs")


def glorot_normal() -> Initializer:
    """Return Glorot's initialiser, with variance 2 / (inputs + outputs), which suits tanh and sigmoid.

    >>> nn.initializers.glorot_normal()(jax.random.key(0), (3, 2)).shape
    (3, 2)

    Source: Glorot and Bengio 2010.
    """
    return _truncated_normal(2.0, "both")


def initializer_for(
    activation: Activation | None, inputs: Width | None = None, outputs: Width | None = None
) -> Initializer:
    """Return the weight initialiser that preserves the scale of activations under the activation that follows.

    For tanh, sigmoid, soft_sign and softmax, this is Glorot's (variance 2 / (inputs + outputs)). For selu and for None
    (a last layer), it is LeCun's (1 / inputs). For all others, such as ReLU, it is He's (2 / inputs).

    Args:
      activation: The function after the layer.
      inputs: True number of inputs if the weights are padded (see `first_features`), or None. Weights beyond this
        number are zero. It may be a traced integer.
      outputs: True number of outputs if the weights are padded, or None.

    Raises:
      ValueError: when the initialiser is called, if an untraced true width is outside 1 … padded width.
      TypeError: if the activation is not a function.

    >>> w = nn.initializer_for(jax.nn.relu)(jax.random.key(0), (1000, 500))
    >>> f"{1000 * w.var():.1f}"
    '2.0'

    Source: LeCun et al. 1998; Glorot and Bengio 2010; He et al. 2015, arXiv:1502.01852.
    """
    if activation is not None:
        checks.function("initializer_for", "activation", activation, "jax.nn.relu")
    if activation is None or activation is jax.nn.selu:
        return _truncated_normal(1.0, "inputs", inputs, outputs)
    if activation in (jnp.tanh, jax.nn.tanh, jax.nn.sigmoid, jax.nn.soft_sign, jax.nn.softmax):
        return _truncated_normal(2.0, "both", inputs, outputs)
    return _truncated_normal(2.0, "inputs", inputs, outputs)


def scaled(init: Initializer, factor: float | Array) -> Initializer:
    """Return an initialiser whose values are multiplied by a factor.

        w = factor · init(key)

    Args:
      init: Any initialiser.
      factor: A number ≥ 0. It may be a traced array, so that `jax.vmap` can sweep it and `jax.grad` can differentiate
        with respect to it.

    Raises:
      ValueError: if the factor is negative or not finite.
      TypeError: if `init` is not a function.

    >>> small = nn.dense(3, w_init=nn.initializers.scaled(nn.initializers.he_normal(), 0.1))
    >>> small.init(jax.random.key(0), jnp.ones((1, 2)))[0]["w"].shape
    (2, 3)
    """
    checks.function("scaled", "init", init, "nn.initializers.he_normal()")
    factor = checks.in_range("scaled", "factor", factor, "[0, inf)")

    def scaled_init(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return init(key, shape, dtype) * jnp.asarray(factor, dtype)

    return scaled_init


def _truncated_normal(
    scale: float, fan: Literal["inputs", "both"], inputs: Width | None = None, outputs: Width | None = None
) -> Initializer:
    """Return an initialiser that draws from a truncated normal distribution (±2 σ) with variance scale / fan.

    Weights beyond the true widths `inputs` and `outputs` are zero; the others equal the weights of a layer without
    padding.
    """

    def init(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        key = checks.key("initializers", key)
        dtype = checks.floating_dtype("initializers", "dtype", dtype)
        shape = tuple(checks.positive_int("initializers", "shape", size) for size in _weight_shape(shape))
        rows = shape[-2] if inputs is None else check_width("initializers", "inputs", inputs, shape[-2])
        columns = shape[-1] if outputs is None else check_width("initializers", "outputs", outputs, shape[-1])
        field = math.prod(shape[:-2])  # the receptive field of a convolution; 1 for a dense layer
        number = field * (rows if fan == "inputs" else rows + columns)
        if isinstance(number, int):
            deviation: float | Array = math.sqrt(scale / number)
        else:
            deviation = jnp.sqrt(scale / number.astype(float))
        draws = jax.random.truncated_normal(key, -2, 2, (math.prod(shape),), dtype)
        if inputs is not None or outputs is not None:
            draws = jnp.take(draws, narrow_index(shape, inputs, outputs), mode="clip")
        return keep_block(draws.reshape(shape) * jnp.asarray(deviation / CUT, dtype), inputs, outputs)

    return init


def _weight_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    shape = checks.items("initializers", "shape", shape, "(inputs, outputs)")
    if len(shape) < 2:
        raise ValueError(f"initializers: shape must be (..., inputs, outputs), got {shape}; for biases use zeros")
    return shape
