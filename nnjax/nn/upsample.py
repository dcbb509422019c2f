"""Upsample images and sequences, without parameters."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import checks
from nnjax.nn._windows import PerAxis, per_axis
from nnjax.types import Key, Layer, Params, State

Method = Literal["nearest", "linear"]


def upsample(factor: PerAxis, *, method: Method = "nearest") -> Layer:
    """Enlarge the spatial axes by an integer factor.

        nearest: y[i] = x[i // factor];   linear: y[i] = x interpolated at (i + ½) / factor - ½

    Args:
      factor: Factor by which the spatial axes are enlarged, an integer or one per axis.
      method: "nearest" repeats values; "linear" interpolates along every axis (bilinear for images), like torch's
        Upsample with align_corners=False.

    Shapes: x (batch, *spatial, channels) -> y (batch, *(factor · spatial), channels).

    Raises:
      ValueError: if a factor is < 1, if the method is unknown, or if x has a different number of spatial axes.
      TypeError: if a factor is not an integer, or x is not floating-point.

    >>> nn.upsample(2).apply((), (), jnp.arange(2.0).reshape(1, 2, 1), train=False)[0].ravel().tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    checks.one_of("upsample", "method", method, ("nearest", "linear"))
    for value in factor if isinstance(factor, (list, tuple)) and factor else [factor]:
        checks.positive_int("upsample", "factor", value)
    name = f"upsample({factor})"

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        per_axis(name, x, "factor", factor)
        return (), ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        factors = per_axis(name, x, "factor", factor)
        if method == "nearest":
            for axis, times in enumerate(factors, start=1):
                x = jnp.repeat(x, times, axis)
            return x, state
        spatial = [times * length for times, length in zip(factors, x.shape[1:-1], strict=True)]
        return jax.image.resize(x, (x.shape[0], *spatial, x.shape[-1]), method).astype(x.dtype), state

    return Layer(name, init, apply)
