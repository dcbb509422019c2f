"""Build embedding layers, which look up a trained vector for each integer."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn.initializers import normal

from nnjax import checks
from nnjax.types import Initializer, Key, Layer, Params, State


def embedding(size: int, features: int, *, w_init: Initializer = normal(1.0)) -> Layer:
    """Look up a trained vector for each integer.

        y = w[x]

    Args:
      size: Number of vectors; valid integers are 0 … size - 1.
      features: Length of a vector.
      w_init: Initialiser of `w`. The default gives components of variance 1.

    Shapes: x (batch, ...), integers -> y (batch, ..., features). Parameters `{"w": (size, features)}`.
    An integer outside 0 … size - 1 gives NaN, which makes the mistake visible even in a jitted program.

    Raises:
      ValueError: if size < 1 or features < 1.
      TypeError: if x does not hold integers.

    >>> layer = nn.embedding(100, 16)
    >>> params, state = layer.init(jax.random.key(0), jnp.zeros((32, 7), jnp.int32))
    >>> layer.apply(params, state, jnp.zeros((32, 7), jnp.int32), train=False)[0].shape
    (32, 7, 16)
    """
    size = checks.positive_int("embedding", "size", size)
    features = checks.positive_int("embedding", "features", features)
    name = f"embedding({size}, {features})"

    checks.function(name, "w_init", w_init, "jax.nn.initializers.normal(1.0)")

    def check(x: Array) -> None:
        checks.numbers(name, x)
        if not jnp.issubdtype(x.dtype, jnp.integer):
            raise TypeError(f"{name}: x must hold integers, got {x.dtype}; cast it, as in x.astype(jnp.int32)")

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        key = checks.key(name, key, x)
        check(x)
        return {"w": w_init(jax.random.fold_in(key, 0), (size, features), jnp.result_type(float))}, ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        check(x)
        checks.leaves(name, "params", params, {"w": (size, features)})
        rows = params["w"].at[x].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        return rows, state

    return Layer(name, init, apply)
