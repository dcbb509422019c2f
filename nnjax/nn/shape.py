"""Layers that only change shapes, and the broadcast along the feature axis that layers with parameters share."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from nnjax import checks
from nnjax.nn.as_layer import as_layer
from nnjax.types import Layer


def flatten() -> Layer:
    """All axes but the batch as one: (batch, ...) -> (batch, features).

    >>> y, _ = nn.flatten().apply((), (), jnp.ones((32, 8, 8)), train=False)
    >>> y.shape
    (32, 64)
    """

    def function(x: Array) -> Array:
        if x.ndim < 2:
            raise ValueError(f"flatten: x must be (batch, ...), got {tuple(x.shape)}; use x[None] for one example")
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))

    return as_layer(function)._replace(name="flatten")


def reshape(shape: Sequence[int]) -> Layer:
    """Each example in a new shape: (batch, ...) -> (batch, *shape).

    Args:
      shape: of one example, without the batch axis; `()` turns (batch, 1) into (batch,).

    Raises:
      ValueError: in `init` or `apply`, where the sizes differ.

    >>> y, _ = nn.reshape((8, 8, 1)).apply((), (), jnp.ones((32, 64)), train=False)
    >>> y.shape
    (32, 8, 8, 1)
    """
    if isinstance(shape, int):
        raise TypeError(f"reshape: shape must be a tuple, got {shape}; use ({shape},)")
    shape = tuple(checks.positive_int("reshape", "shape", size) for size in shape)
    name = f"reshape({shape})"

    def function(x: Array) -> Array:
        if math.prod(x.shape[1:]) != math.prod(shape):
            raise ValueError(f"{name}: one example has shape {x.shape[1:]}, of another size than {shape}")
        return x.reshape(x.shape[0], *shape)

    return as_layer(function)._replace(name=name)


def per_feature(vector: Array, x: Array) -> Array:
    """A vector (features,) as (1, ..., 1, features), to meet `x` (..., features) without rank promotion."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


def param_dtype(x: Array) -> DTypeLike:
    """The dtype of a layer's parameters: that of its input if floating, else JAX's default float."""
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
