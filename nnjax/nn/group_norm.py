"""Normalise each example over its positions and groups of its channels."""

import jax.numpy as jnp
from jax import Array, lax

from nnjax import checks
from nnjax.nn._features import check_scale, init_scale, per_feature, wide_dtype
from nnjax.types import Key, Layer, Params, State


def group_norm(groups: int, *, eps: float | Array = 1e-5) -> Layer:
    """Normalise each example over its positions and each group of its channels, then scale and shift it (GroupNorm).

        y = scale · (x - mean) / √(variance + eps) + bias,  mean and variance over all positions and a group's channels

    The result for an example does not depend on the rest of the batch. This suits batches too small for `batch_norm`.

    Args:
      groups: Number of groups of consecutive channels. It must divide the number of channels. With one group, all
        channels are normalised together.
      eps: A number > 0, added to the variance inside the root.

    Shapes: x (batch, *positions, channels) -> y, the same shape. Parameters `{"scale", "bias"}` have shape (channels,).
    Statistics are computed in two passes, in float32 or a wider dtype.

    Raises:
      ValueError: if groups < 1 or eps ≤ 0; in `init`, if groups does not divide the channels; in `apply`, if x has the
        wrong number of channels, or if a group contains only one value.
      TypeError: if groups is not an integer, or x is not floating-point.

    >>> layer = nn.group_norm(2)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 8, 8, 6)))
    >>> layer.apply(params, state, jnp.ones((4, 8, 8, 6)), train=True)[0].shape
    (4, 8, 8, 6)

    Source: Wu and He 2018, arXiv:1803.08494.
    """
    groups = checks.positive_int("group_norm", "groups", groups)
    return _group_norm(f"group_norm({groups})", groups, eps)


def instance_norm(*, eps: float | Array = 1e-5) -> Layer:
    """Normalise each channel of each example over its positions, then scale and shift it (InstanceNorm).

        y = scale · (x - mean) / √(variance + eps) + bias,  mean and variance over all positions

    Args:
      eps: A number > 0, added to the variance inside the root.

    Shapes: x (batch, *positions, channels) -> y, the same shape. Parameters `{"scale", "bias"}` have shape (channels,);
    torch's layer has them with `affine=True`. Statistics are computed in two passes, in float32 or a wider dtype.

    Raises:
      ValueError: if eps ≤ 0; in `apply`, if x has the wrong number of channels or only one position.
      TypeError: if x is not floating-point.

    >>> layer = nn.instance_norm()
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    >>> layer.apply(params, state, jnp.ones((4, 8, 8, 3)), train=True)[0].shape
    (4, 8, 8, 3)

    Source: Ulyanov, Vedaldi and Lempitsky 2016, arXiv:1607.08022.
    """
    return _group_norm("instance_norm", None, eps)


def _group_norm(name: str, groups: int | None, eps: float | Array) -> Layer:
    """Return a group normalisation layer, with one group per channel if `groups` is None."""
    eps = checks.in_range(name, "eps", eps, "(0, inf)")

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        checks.key(name, key, x)
        params = init_scale(name, x)
        if x.shape[-1] % (groups or 1):
            raise ValueError(
                f"{name}: groups must divide the number of channels, got {groups} for {x.shape[-1]} channels"
            )
        return params, ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        check_scale(name, x, params)
        channels = params["scale"].shape[0]
        dtype = wide_dtype(x.dtype)
        grouped = x.astype(dtype).reshape(x.shape[0], -1, groups or channels, channels // (groups or channels))
        if grouped.shape[1] * grouped.shape[3] < 2:
            raise ValueError(
                f"{name}: each group needs at least 2 values to normalise, got x {tuple(x.shape)}; use fewer "
                "groups or more positions"
            )
        centred = grouped - grouped.mean((1, 3), keepdims=True)
        inverse = lax.rsqrt(jnp.square(centred).mean((1, 3), keepdims=True) + jnp.asarray(eps, dtype))
        y = (centred * inverse).reshape(x.shape) * per_feature(params["scale"].astype(dtype), x)
        return (y + per_feature(params["bias"].astype(dtype), x)).astype(x.dtype), state

    return Layer(name, init, apply)
