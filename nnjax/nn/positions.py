"""Encode positions for attention."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn.initializers import normal

from nnjax import checks
from nnjax.nn._features import param_dtype, wide_dtype
from nnjax.types import Initializer, Key, Layer, Params, State


def sinusoidal_positions(*, base: float = 10_000.0) -> Layer:
    """Add sines and cosines of the position, with wavelengths from 2π to at most base · 2π.

        y[p] = x[p] + [sin(p f_0), cos(p f_0), sin(p f_1), cos(p f_1), …],   f_i = base^(-2i / features)

    Args:
      base: Base of the frequencies, > 0. A larger base gives longer wavelengths.

    Shapes: x (batch, length, features) with any length -> y, the same shape.

    Raises:
      ValueError: if base ≤ 0, or if x does not have three axes.
      TypeError: if x is not floating-point.

    >>> y, _ = nn.sinusoidal_positions().apply((), (), jnp.zeros((1, 2, 4)), train=False)
    >>> [f"{v:.2f}" for v in y[0, 1]]
    ['0.84', '0.54', '0.01', '1.00']

    Source: Vaswani et al. 2017, arXiv:1706.03762.
    """
    base = checks.in_range("sinusoidal_positions", "base", base, "(0, inf)")
    name = "sinusoidal_positions"

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        checks.sequences(name, x)
        return (), ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        checks.sequences(name, x)
        length, features = x.shape[1:]
        angles = _angles(length, features, base, x)
        waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1).reshape(length, -1)[:, :features]
        return x + waves[None].astype(x.dtype), state

    return Layer(name, init, apply)


def learned_positions(length: int, *, w_init: Initializer = normal(0.02)) -> Layer:
    """Add a trained vector to each position.

        y[p] = x[p] + w[p]

    Args:
      length: Maximum length of a sequence.
      w_init: Initialiser of `w`.

    Shapes: x (batch, at most length, features) -> y, the same shape. Parameters `{"w": (length, features)}`.

    Raises:
      ValueError: if length < 1, or if x is longer or has the wrong number of features.
      TypeError: if the length is not an integer, or x is not floating-point.

    >>> layer = nn.learned_positions(16)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 5, 8)))
    >>> layer.apply(params, state, jnp.ones((4, 7, 8)), train=False)[0].shape
    (4, 7, 8)

    Source: Gehring et al. 2017, arXiv:1705.03122.
    """
    length = checks.positive_int("learned_positions", "length", length)
    name = f"learned_positions({length})"
    checks.function(name, "w_init", w_init, "jax.nn.initializers.normal(0.02)")

    def check(x: Array) -> None:
        checks.sequences(name, x)
        if x.shape[1] > length:
            raise ValueError(f"{name}: x has {x.shape[1]} positions, but there are vectors for only {length}")

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        key = checks.key(name, key, x)
        check(x)
        return {"w": w_init(jax.random.fold_in(key, 0), (length, x.shape[-1]), param_dtype(x))}, ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        check(x)
        checks.leaves(name, "params", params, {"w": (length, x.shape[-1])})
        return x + params["w"][None, : x.shape[1]].astype(x.dtype), state

    return Layer(name, init, apply)


def rotary(*, base: float = 10_000.0) -> Callable[[Array], Array]:
    """Return a function that rotates queries and keys by their position, for `multi_head_attention(rotate=…)`.

        [a, b] ← [a cos(p f_i) - b sin(p f_i), a sin(p f_i) + b cos(p f_i)],   f_i = base^(-2i / size)

    where a and b are entries i and i + size / 2. The product of a rotated query and a rotated key depends only on the
    difference of their positions.

    Args:
      base: Base of the frequencies, > 0. A larger base gives longer wavelengths.

    Returns:
      A function that maps an array (batch, length, heads, size) to one of the same shape. The size must be even.

    Raises:
      ValueError: if base ≤ 0; when the function is called, if the array does not have four axes or the size is odd.

    >>> nn.rotary()(jnp.ones((1, 5, 2, 8))).shape
    (1, 5, 2, 8)

    Source: Su et al. 2021, arXiv:2104.09864, but with the pairs of Llama; the paper pairs neighbouring entries.
    """
    base = checks.in_range("rotary", "base", base, "(0, inf)")

    def rotate(x: Array) -> Array:
        if x.ndim != 4 or x.shape[-1] % 2:
            raise ValueError(f"rotary: x must be (batch, length, heads, even size), got {tuple(x.shape)}")
        angles = _angles(x.shape[1], x.shape[-1], base, x)[None, :, None]
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        a, b = jnp.split(x.astype(angles.dtype), 2, -1)
        return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1).astype(x.dtype)

    return rotate


def _angles(length: int, features: int, base: float | Array, x: Array) -> Array:
    """Return the angles (length, ⌈features / 2⌉) in float32 or a wider dtype; bfloat16 cannot represent 257."""
    dtype = wide_dtype(x.dtype)
    positions = jnp.arange(length, dtype=dtype)[:, None]
    exponents = jnp.arange(0, features, 2, dtype=dtype)[None] / features
    return positions * jnp.asarray(base, dtype) ** -exponents
