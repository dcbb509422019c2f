"""Pool windows of the spatial axes."""

from collections.abc import Callable, Sequence
from functools import reduce

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from nnjax import checks
from nnjax.nn._windows import Padding, PerAxis, Windows, check_windows, grid, refuse_padding_alone
from nnjax.nn.as_layer import as_layer
from nnjax.types import Layer


def max_pool(window: PerAxis, *, strides: PerAxis | None = None, padding: Padding = "VALID") -> Layer:
    """Take the maximum of each window.

    Args:
      window: Size of the window along each spatial axis; an integer means the same size for all axes.
      strides: Step between windows; None means the window size, so that windows do not overlap.
      padding: "SAME", "VALID", or (before, after) for each spatial axis. Padding never affects the result.

    Shapes: x (batch, *spatial, channels) -> y (batch, *spatial', channels).

    Raises:
      ValueError: if a size is < 1 or the padding is unknown; in `apply`, if the window has a different number of axes
        than the input or does not fit into it, or if a window contains only padding, which has no maximum or mean.
      TypeError: if a size is not an integer, or x is not floating-point.

    >>> y, _ = nn.max_pool(2).apply((), (), jnp.arange(16.0).reshape(1, 4, 4, 1), train=False)
    >>> y[0, :, :, 0]
    Array([[ 5.,  7.],
           [13., 15.]], dtype=float32)
    """
    name, windows = _pool("max_pool", window, strides, padding)

    def function(x: Array) -> Array:
        return _reduce_windows(name, x, windows, "max")

    return as_layer(function)._replace(name=name)


def avg_pool(window: PerAxis, *, strides: PerAxis | None = None, padding: Padding = "VALID") -> Layer:
    """Take the mean of each window, excluding padding.

    Arguments, shapes and errors: see `max_pool`.

    >>> y, _ = nn.avg_pool(2).apply((), (), jnp.arange(16.0).reshape(1, 4, 4, 1), train=False)
    >>> y[0, :, :, 0]
    Array([[ 2.5,  4.5],
           [10.5, 12.5]], dtype=float32)
    """
    name, windows = _pool("avg_pool", window, strides, padding)

    def function(x: Array) -> Array:
        total = _reduce_windows(name, x, windows, "sum")
        ones = jnp.ones((1, *x.shape[1:-1], 1), x.dtype)
        return total / jnp.broadcast_to(_reduce_windows(name, ones, windows, "sum"), total.shape)

    return as_layer(function)._replace(name=name)


def global_avg_pool() -> Layer:
    """Take the mean over all spatial axes: (batch, *spatial, channels) -> (batch, channels).

    Raises:
      ValueError: if x has no spatial axis, or an axis of length 0.
      TypeError: if x is not floating-point.

    >>> y, _ = nn.global_avg_pool().apply((), (), jnp.ones((2, 7, 7, 16)), train=False)
    >>> y.shape
    (2, 16)
    """

    def function(x: Array) -> Array:
        checks.batched("global_avg_pool", x, "(batch, *spatial, channels)", 3)
        if 0 in x.shape[1:-1]:
            raise ValueError(f"global_avg_pool: the spatial axes must not be empty, got x {tuple(x.shape)}")
        return x.mean(axis=tuple(range(1, x.ndim - 1)))

    return as_layer(function)._replace(name="global_avg_pool")


def _pool(kind: str, window: PerAxis, strides: PerAxis | None, padding: Padding) -> tuple[str, Windows]:
    name = f"{kind}({window})"
    return name, check_windows(name, Windows("window", window, window if strides is None else strides, padding))


def _reduce_windows(name: str, x: Array, windows: Windows, reduction: str) -> Array:
    """Reduce each window of `x` (batch, *spatial, channels) to its "max" or "sum".

    Windows that tile the input are reduced pairwise along one axis after the other; tied maxima share the gradient.
    On CPUs, with gradient, this is 2 to 6 times faster than `jnp.max` over both axes, whose gradient counts the maxima.
    It is 3 to 14 times faster than `lax.reduce_window`, whose gradient searches each window again. All other windows
    use `lax.reduce_window`; there, the first of several tied maxima gets the whole gradient.
    """
    places = grid(name, x, windows)
    refuse_padding_alone(name, x, places)
    if places.strides == places.size and not any(map(sum, places.pads)):
        return _reduce_tiles(x, places.size, jnp.maximum if reduction == "max" else jnp.add)
    # JAX differentiates only reductions that it recognises, so these must be lax.max and lax.add
    start, combine = (-jnp.inf, lax.max) if reduction == "max" else (0.0, lax.add)
    pads = ((0, 0), *places.pads, (0, 0))
    size, strides = (1, *places.size, 1), (1, *places.strides, 1)
    return lax.reduce_window(x, np.asarray(start, x.dtype), combine, size, strides, pads)


def _reduce_tiles(x: Array, size: Sequence[int], combine: Callable[[Array, Array], Array]) -> Array:
    """Reduce windows that neither overlap nor leave gaps; ignore an incomplete window at the end of an axis."""
    for axis, width in enumerate(size, 1):
        count = x.shape[axis] // width
        whole = lax.slice_in_dim(x, 0, count * width, axis=axis)
        tiles = whole.reshape(*x.shape[:axis], count, width, *x.shape[axis + 1 :])
        x = reduce(combine, [lax.index_in_dim(tiles, i, axis + 1, keepdims=False) for i in range(width)])
    return x
