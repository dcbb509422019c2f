"""Normalise by the root mean square."""

import jax.numpy as jnp
from jax import Array, lax

from nnjax import checks
from nnjax.nn._features import param_dtype, per_feature, wide_dtype
from nnjax.types import Key, Layer, Params, State


def rms_norm(*, eps: float | Array = 1e-6) -> Layer:
    """Divide each example by the root mean square of its features, then scale it (RMSNorm).

        y = scale · x / √(mean(x²) + eps),  mean over the last axis

    Args:
      eps: A number > 0, added to the mean inside the root. The default is Flax's; torch uses the machine epsilon of
        the dtype.

    Shapes: x (batch, ..., features) -> y, the same shape. Parameters `{"scale": (features,)}`. The mean is computed
    in float32 or a wider dtype.

    Raises:
      ValueError: if eps ≤ 0, or if x has the wrong number of features.
      TypeError: if x is not floating-point.

    >>> layer = nn.rms_norm()
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 2)))
    >>> y, _ = layer.apply(params, state, jnp.array([[3.0, 4.0]]), train=False)
    >>> [f"{v:.3f}" for v in y[0]]
    ['0.849', '1.131']

    Source: Zhang and Sennrich 2019, arXiv:1910.07467.
    """
    eps = checks.in_range("rms_norm", "eps", eps, "(0, inf)")
    name = "rms_norm"

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        checks.key(name, key, x)
        checks.batched(name, x)
        return {"scale": jnp.ones(x.shape[-1:], param_dtype(x))}, ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        checks.batched(name, x)
        checks.leaves(name, "params", params, {"scale": (None,)})
        checks.features(name, x, params["scale"].shape[0])
        dtype = wide_dtype(x)
        wide = x.astype(dtype)
        inverse = lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + jnp.asarray(eps, dtype))
        return (wide * inverse * per_feature(params["scale"].astype(dtype), x)).astype(x.dtype), state

    return Layer(name, init, apply)
