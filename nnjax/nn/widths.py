"""A true width inside a padded one: the widths of a network become numbers, and `jax.vmap` sweeps them."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from nnjax import checks
from nnjax.nn.as_layer import as_layer
from nnjax.nn.shape import per_feature
from nnjax.types import Layer

Width = int | Array


def mask(width: Width) -> Layer:
    """The first `width` features as they are, the others zero.

        y_i = x_i  if i < width  else 0

    After every activation of a network it makes the rest of the width padding: what the network computes, and the
    gradient of the parameters that are not padding, is that of the narrower network; the gradient of the padding is 0.
    After, not before, because an activation need not keep 0, as softplus and the sigmoid do not. `mlp(widths=…)` puts
    the masks where they belong.

    Args:
      width: how many features count, 1 … features; may be a traced integer, so that `jax.vmap` can sweep it.

    Shapes: x (batch, ..., features) -> y, the same.

    Raises:
      TypeError: for a width that is no integer.
      ValueError: for a width outside 1 … features, where its value is known.

    >>> nn.mask(2).apply((), (), jnp.ones((1, 4)), train=False)[0]
    Array([[1., 1., 0., 0.]], dtype=float32)
    """
    width = check_width("mask", "width", width)
    name = "mask" if checks.is_traced(width) else f"mask({width})"

    def function(x: Array) -> Array:
        checks.batched(name, x)
        check_width(name, "width", width, x.shape[-1])
        return jnp.where(per_feature(inside(width, x.shape[-1]), x), x, jnp.zeros_like(x))

    return as_layer(function)._replace(name=name)


def inside(width: Width, padded: int) -> Array:
    """Which of `padded` places count, (padded,)."""
    return jnp.arange(padded, dtype=jnp.int32) < jnp.asarray(width, jnp.int32)


def check_width(where: str, name: str, value: Any, padded: int | None = None) -> Width:
    """`value` as a width of 1 … `padded`: a Python int, or a traced integer as it is, whose value is not known."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or isinstance(value, np.generic):
        value = checks.positive_int(where, name, value)
    elif not jnp.issubdtype(dtype, jnp.integer) or value.ndim:
        hint = "; jax.vmap over several" if value.ndim else ""
        raise TypeError(f"{where}: {name} must be one integer, got {dtype} of shape {tuple(value.shape)}{hint}")
    if checks.is_traced(value):
        return value
    known = checks.positive_int(where, name, int(value))
    if padded is not None and known > padded:
        raise ValueError(f"{where}: {name} must be in 1 … {padded}, the padded width, got {known}")
    return known
