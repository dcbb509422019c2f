"""Dropout."""

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import checks
from nnjax.types import Key, Layer, Params, State


def dropout(rate: float | Array, *, always: bool = False) -> Layer:
    """Dropout: in training each value is zeroed with probability `rate` and the others grow to keep the mean.

        train:  y = mask · x / (1 - rate),  mask ~ Bernoulli(1 - rate)
        else:   y = x

    Args:
      rate: probability in [0, 1) of dropping a value; may be a traced array, so that `jax.vmap` can sweep it.
      always: draw when predicting too, wherever a key is given: `apply(params, state, x, train=False, key=key)`, as
        `uncertainty.mc_dropout` does. Without a key, as in validation, prediction stays as it is.

    Shapes: x (batch, ...) -> y, the same.

    Raises:
      ValueError: for a rate outside [0, 1), or for `train=True` without a key.

    >>> layer = nn.dropout(0.5)
    >>> y, _ = layer.apply((), (), jnp.ones((1, 1000)), train=True, key=jax.random.key(0))
    >>> sorted({float(v) for v in y[0]})
    [0.0, 2.0]

    Source: Srivastava et al. 2014, in the inverted form, which leaves prediction as it is.
    """
    rate = checks.in_range("dropout", "rate", rate, "[0, 1)")
    name = "dropout" if isinstance(rate, jax.Array) else f"dropout({rate:g}{', always' if always else ''})"

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        return (), ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        draws = train or (always and key is not None)
        if not draws or (isinstance(rate, float) and rate == 0):
            return x, state
        if key is None:
            raise ValueError(
                f"{name}: train=True draws a mask and needs a key: apply(params, state, x, train=True, key=key)"
            )
        keep = 1 - jnp.asarray(rate, x.dtype)
        # 16 random bits decide as well as the 32 of jax.random.bernoulli, to 2⁻¹⁶ of the rate, at half the cost
        bits = jax.random.bits(checks.key(name, key), x.shape, jnp.uint16).astype(jnp.float32)
        mask = bits < keep.astype(jnp.float32) * 2**16
        return jnp.where(mask, x / keep, jnp.zeros_like(x)), state

    return Layer(name, init, apply)
