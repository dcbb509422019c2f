"""Dropout."""

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import checks
from nnjax.types import Key, Layer, Params, State


def dropout(rate: float | Array, *, always: bool = False) -> Layer:
    """Zero each value with probability `rate` in training, and scale the others to preserve the mean.

        training:    y = mask · x / (1 - rate),   mask ~ Bernoulli(1 - rate)
        prediction:  y = x

    Args:
      rate: Probability of dropping a value, in [0, 1). It may be a traced array, so that `jax.vmap` can sweep it.
      always: Whether to drop in prediction too if a key is passed, as `uncertainty.mc_dropout` does:
        `apply(params, state, x, train=False, key=key)`. Without a key, as in validation, y = x.

    Shapes: x (batch, ...) -> y, the same shape.

    Raises:
      ValueError: if the rate is outside [0, 1), or for `train=True` without a key.

    >>> layer = nn.dropout(0.5)
    >>> y, _ = layer.apply((), (), jnp.ones((1, 1000)), train=True, key=jax.random.key(0))
    >>> sorted({float(v) for v in y[0]})
    [0.0, 2.0]

    Source: Srivastava et al. 2014, in the inverted form, which scales in training instead of in prediction.
    """
    rate = checks.in_range("dropout", "rate", rate, "[0, 1)")
    name = "dropout" if isinstance(rate, jax.Array) else f"dropout({rate:g}{', always' if always else ''})"

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        return (), ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        drops = train or (always and key is not None)
        if not drops or (isinstance(rate, float) and rate == 0):
            return x, state
        if key is None:
            raise ValueError(
                f"{name}: train=True draws a mask and needs a key: apply(params, state, x, train=True, key=key)"
            )
        keep = 1 - jnp.asarray(rate, x.dtype)
        # 16 random bits cost half as much as the 32 of jax.random.bernoulli, and meet the rate within 2⁻¹⁶
        bits = jax.random.bits(checks.key(name, key), x.shape, jnp.uint16).astype(jnp.float32)
        mask = bits < keep.astype(jnp.float32) * 2**16
        return jnp.where(mask, x / keep, jnp.zeros_like(x)), state

    return Layer(name, init, apply)
