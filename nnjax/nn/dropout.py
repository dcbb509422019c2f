"""Build layers that drop random values, channels or examples in training."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.random import threefry_2x32

from nnjax import checks
from nnjax.nn._features import wide_dtype
from nnjax.nn.widths import Width, narrow_index
from nnjax.types import Key, Layer, Params, State


def dropout(rate: float | Array, *, always: bool = False) -> Layer:
    """Zero each value with probability `rate` during training, and scale the others to preserve the mean.

        training:    y = mask · x / (1 - rate),   mask ~ Bernoulli(1 - rate)
        prediction:  y = x

    Args:
      rate: Probability of dropping a value, in [0, 1). It may be a traced array, so that `jax.vmap` can sweep it.
      always: True to also drop values in prediction if a key is passed:
        `apply(params, state, x, train=False, key=key)`. `uncertainty.mc_dropout` needs this. Without a key, y = x.

    Shapes: x (batch, ...), floating -> y, the same shape and dtype. The probability of dropping a value equals `rate`
    to within 2⁻³², even if x has 16 bits, because the mask is drawn from 32-bit integers.

    Raises:
      ValueError: if the rate is outside [0, 1); in `apply(train=True)`, if there is no key.
      TypeError: if x is not floating-point.

    >>> layer = nn.dropout(0.5)
    >>> y, _ = layer.apply((), (), jnp.ones((1, 1000)), train=True, key=jax.random.key(0))
    >>> sorted({float(v) for v in y[0]})
    [0.0, 2.0]

    Source: Srivastava et al. 2014, as inverted dropout, which scales during training instead of prediction.
    """
    return _dropout("dropout", rate, always, lambda shape: shape)


def padded_dropout(rate: float | Array, width: Width) -> Layer:
    """Return dropout for padded features; the first `width`, which are real, get the mask of a layer without padding.

    This holds for JAX's default random number generator; for others, the masks differ.

    Shapes: x (batch, features), floating -> y, the same shape and dtype.
    """
    return _dropout("dropout", rate, False, lambda shape: shape, width)


def spatial_dropout(rate: float | Array, *, always: bool = False) -> Layer:
    """Zero each channel of each example with probability `rate` during training, at all positions together.

        training:    y = mask · x / (1 - rate),   mask (batch, 1, …, 1, channels) ~ Bernoulli(1 - rate)
        prediction:  y = x

    Neighbouring positions of an image are so similar that dropping individual values removes little information.

    Args:
      rate: Probability of dropping a channel, in [0, 1). It may be a traced array, so that `jax.vmap` can sweep it.
      always: True to also drop channels in prediction if a key is passed; see `dropout`.

    Shapes: x (batch, *positions, channels), floating -> y, the same shape and dtype.

    Raises:
      ValueError: if the rate is outside [0, 1); in `apply(train=True)`, if there is no key.
      TypeError: if x is not floating-point.

    >>> layer = nn.spatial_dropout(0.5)
    >>> y, _ = layer.apply((), (), jnp.ones((1, 4, 4, 100)), train=True, key=jax.random.key(0))
    >>> bool((y == y[:, :1, :1]).all())
    True

    Source: Tompson et al. 2015, arXiv:1411.4280.
    """
    return _dropout("spatial_dropout", rate, always, lambda shape: (shape[0], *[1] * (len(shape) - 2), shape[-1]))


def drop_path(rate: float | Array) -> Layer:
    """Zero whole examples with probability `rate` during training. In a residual block, this skips the branch.

        training:    y = mask · x / (1 - rate),   mask (batch, 1, …) ~ Bernoulli(1 - rate)
        prediction:  y = x

    Args:
      rate: Probability of dropping an example, in [0, 1). It may be a traced array, so that `jax.vmap` can sweep it.

    Shapes: x (batch, ...), floating -> y, the same shape and dtype.

    Raises:
      ValueError: if the rate is outside [0, 1); in `apply(train=True)`, if there is no key.
      TypeError: if x is not floating-point.

    >>> block = nn.residual(nn.dense(8), jax.nn.relu, nn.drop_path(0.1))
    >>> params, state = block.init(jax.random.key(0), jnp.ones((1, 8)))
    >>> block.apply(params, state, jnp.ones((32, 8)), train=True, key=jax.random.key(1))[0].shape
    (32, 8)

    Source: Huang et al. 2016 (stochastic depth), arXiv:1603.09382.
    """
    return _dropout("drop_path", rate, False, lambda shape: (shape[0], *[1] * (len(shape) - 1)))


def _dropout(
    kind: str,
    rate: float | Array,
    always: bool,
    mask_shape: Callable[[tuple[int, ...]], tuple[int, ...]],
    width: Width | None = None,
) -> Layer:
    """Return a dropout layer whose mask has the shape `mask_shape(x.shape)` and is broadcast to x."""
    rate = checks.in_range(kind, "rate", rate, "[0, 1)")
    always = checks.flag(kind, "always", always)
    name = kind if isinstance(rate, jax.Array) else f"{kind}({rate:g}{', always' if always else ''})"

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
        bits = _draw_bits(checks.key(name, key), mask_shape(x.shape), width)
        # Swap the 16-bit halves: for rates that are multiples of 2⁻¹⁶, only the original lower half matters
        draws = ~((bits << 16) | (bits >> 16))
        dtype = wide_dtype(x.dtype)
        if isinstance(rate, float):
            threshold, keep = jnp.uint32(rate * 2.0**32), jnp.asarray(1 - rate, dtype)
        else:
            wide = rate.astype(dtype)
            threshold, keep = (wide * 2.0**32).astype(jnp.uint32), 1 - wide
        return jnp.where(draws >= threshold, (x.astype(dtype) / keep).astype(x.dtype), jnp.zeros_like(x)), state

    return Layer(name, init, apply)


def _draw_bits(key: Key, shape: tuple[int, ...], width: Width | None) -> Array:
    """Return random 32-bit integers (rows, features). The first `width` features equal an array of this width.

    `jax.random.bits` computes each number from the key and its flat index alone, so the index in the narrow array is
    computed instead. Selecting the numbers from a larger array by their index would be slower.
    """
    if width is None or str(jax.random.key_impl(key)) != "threefry2x32":
        return jax.random.bits(key, shape, jnp.uint32)
    index = narrow_index(shape, None, width).astype(jnp.uint32)
    words = threefry_2x32(jax.random.key_data(key), jnp.stack([jnp.zeros_like(index), index]))
    return words[0] ^ words[1]
