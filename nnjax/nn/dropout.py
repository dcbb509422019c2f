"""Dropout."""

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import checks
from nnjax.nn._features import wide_dtype
from nnjax.types import Key, Layer, Params, State


def dropout(rate: float | Array, *, always: bool = False) -> Layer:
    """Zero each value with probability `rate` in training, and scale the others to preserve the mean.

        training:    y = mask · x / (1 - rate),   mask ~ Bernoulli(1 - rate)
        prediction:  y = x

    Args:
      rate: Probability of dropping a value, in [0, 1). It may be a traced array, so that `jax.vmap` can sweep it.
      always: Whether to drop in prediction too if a key is passed, as `uncertainty.mc_dropout` does:
        `apply(params, state, x, train=False, key=key)`. Without a key, as in validation, y = x.

    Shapes: x (batch, ...) of floating numbers -> y, the same shape and dtype. The probability of dropping a value is
    `rate` to within 2⁻³² in every dtype, because mask and scale are not computed in the dtype of x.

    Raises:
      ValueError: if the rate is outside [0, 1), or for `train=True` without a key.
      TypeError: if x is not floating.

    >>> layer = nn.dropout(0.5)
    >>> y, _ = layer.apply((), (), jnp.ones((1, 1000)), train=True, key=jax.random.key(0))
    >>> sorted({float(v) for v in y[0]})
    [0.0, 2.0]

    Source: Srivastava et al. 2014, in the inverted form, which scales in training instead of in prediction.
    """
    rate = checks.in_range("dropout", "rate", rate, "[0, 1)")
    always = checks.flag("dropout", "always", always)
    name = "dropout" if isinstance(rate, jax.Array) else f"dropout({rate:g}{', always' if always else ''})"

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        checks.batched(name, x, "(batch, ...)", 1)
        return (), ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        checks.batched(name, x, "(batch, ...)", 1)
        drops = train or (always and key is not None)
        if not drops or (isinstance(rate, float) and rate == 0):
            return x, state
        if key is None:
            raise ValueError(
                f"{name}: train=True draws a mask and needs a key: apply(params, state, x, train=True, key=key)"
            )
        bits = jax.random.bits(checks.key(name, key), x.shape, jnp.uint32)
        # The lower 16 bits become the upper ones, so that they alone decide at rates that are multiples of 2⁻¹⁶
        draws = ~((bits << 16) | (bits >> 16))
        dtype = wide_dtype(x)
        if isinstance(rate, float):
            threshold, keep = jnp.uint32(rate * 2.0**32), jnp.asarray(1 - rate, dtype)
        else:
            wide = rate.astype(dtype)
            threshold, keep = (wide * 2.0**32).astype(jnp.uint32), 1 - wide
        return jnp.where(draws >= threshold, (x.astype(dtype) / keep).astype(x.dtype), jnp.zeros_like(x)), state

    return Layer(name, init, apply)
