"""Pooling over windows of the spatial axes."""

import math
from collections.abc import Callable, Sequence
from functools import reduce

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from nnjax import checks
from nnjax.nn.as_layer import as_layer
from nnjax.nn.conv import Padding, check_padding, per_axis, spatial
from nnjax.types import Layer


def max_pool(
    window: int | Sequence[int], *, strides: int | Sequence[int] | None = None, padding: Padding = "VALID"
) -> Layer:
    """The largest value of each window.

    Args:
      window: size of the window along each spatial axis; one number for all axes.
      strides: step between windows; None for the window itself, so that windows do not overlap.
      padding: "SAME", "VALID", or (before, after) for each spatial axis; what is padded never wins.

    Shapes: x (batch, *spatial, channels) -> y (batch, *spatial', channels).

    Raises:
      ValueError: for sizes < 1, an unknown padding, a window for another number of axes or larger than the input.

    >>> y, _ = nn.max_pool(2).apply((), (), jnp.arange(16.0).reshape(1, 4, 4, 1), train=False)
    >>> y[0, :, :, 0]
    Array([[ 5.,  7.],
           [13., 15.]], dtype=float32)
    """
    name = f"max_pool({window})"
    check_pool(name, window, strides, padding)

    def function(x: Array) -> Array:
        return reduce_windows(name, x, -jnp.inf, "max", window, strides, padding)

    return as_layer(function)._replace(name=name)


def avg_pool(
    window: int | Sequence[int], *, strides: int | Sequence[int] | None = None, padding: Padding = "VALID"
) -> Layer:
    """The mean of each window; what is padded is not counted.

    Args:
      window: size of the window along each spatial axis; one number for all axes.
      strides: step between windows; None for the window itself, so that windows do not overlap.
      padding: "SAME", "VALID", or (before, after) for each spatial axis.

    Shapes: x (batch, *spatial, channels) -> y (batch, *spatial', channels).

    Raises:
      ValueError: for sizes < 1, an unknown padding, a window for another number of axes or larger than the input.

    >>> y, _ = nn.avg_pool(2).apply((), (), jnp.arange(16.0).reshape(1, 4, 4, 1), train=False)
    >>> y[0, :, :, 0]
    Array([[ 2.5,  4.5],
           [10.5, 12.5]], dtype=float32)
    """
    name = f"avg_pool({window})"
    check_pool(name, window, strides, padding)

    def function(x: Array) -> Array:
        total = reduce_windows(name, x, 0.0, "sum", window, strides, padding)
        ones = jnp.ones((1, *x.shape[1:-1], 1), x.dtype)
        return total / jnp.broadcast_to(reduce_windows(name, ones, 0.0, "sum", window, strides, padding), total.shape)

    return as_layer(function)._replace(name=name)


def global_avg_pool() -> Layer:
    """The mean over all spatial axes: (batch, *spatial, channels) -> (batch, channels).

    >>> y, _ = nn.global_avg_pool().apply((), (), jnp.ones((2, 7, 7, 16)), train=False)
    >>> y.shape
    (2, 16)
    """

    def function(x: Array) -> Array:
        checks.batched("global_avg_pool", x, "(batch, *spatial, channels)", 3)
        return x.mean(axis=tuple(range(1, x.ndim - 1)))

    return as_layer(function)._replace(name="global_avg_pool")


def check_pool(name: str, window: int | Sequence[int], strides: int | Sequence[int] | None, padding: Padding) -> None:
    """The arguments of a pool are sizes and a padding."""
    per_axis(name, "window", window)
    per_axis(name, "strides", window if strides is None else strides)
    check_padding(name, padding)


def reduce_windows(
    name: str,
    x: Array,
    start: float,
    reduction: str,
    window: int | Sequence[int],
    strides: int | Sequence[int] | None,
    padding: Padding,
) -> Array:
    """The maximum or the sum of each window of `x` (batch, *spatial, channels).

    Windows side by side are reduced axis by axis, their elements pairwise: with its gradient, on CPUs, 2 to 6 times
    faster than `jnp.max` over both axes, which counts the maxima, and 3 to 14 times faster than `lax.reduce_window`,
    which takes any windows and searches each again. Equal maxima share the gradient; there it goes to the first.
    """
    size = spatial(name, x, window, "window")
    step = size if strides is None else spatial(name, x, strides, "strides")
    pads = lax.padtype_to_pads(x.shape[1:-1], size, step, padding) if isinstance(padding, str) else padding
    if step == size and not any(map(sum, pads)):
        y = _side_by_side(x, size, jnp.maximum if reduction == "max" else jnp.add)
    else:
        # A Python function of two scalars would do, but JAX differentiates only the reductions it recognises.
        combine = lax.max if reduction == "max" else lax.add
        around = ((0, 0), *pads, (0, 0))
        y = lax.reduce_window(x, np.asarray(start, x.dtype), combine, (1, *size, 1), (1, *step, 1), around)
    if not math.prod(y.shape):
        raise ValueError(f"{name}: the window does not fit into the input {tuple(x.shape)}")
    return y


def _side_by_side(x: Array, size: Sequence[int], combine: Callable[[Array, Array], Array]) -> Array:
    """Of windows that neither overlap nor leave gaps; what is left at the ends is dropped."""
    for axis, width in enumerate(size, 1):
        count = x.shape[axis] // width
        whole = lax.slice_in_dim(x, 0, count * width, axis=axis)
        apart = whole.reshape(*x.shape[:axis], count, width, *x.shape[axis + 1 :])
        x = reduce(combine, [lax.index_in_dim(apart, i, axis + 1, keepdims=False) for i in range(width)])
    return x
