"""The sum over windows behind the convolutional layer, in the form that suits the device."""

import math
from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from nnjax.nn._affine import affine

Sizes = Sequence[int]  # one for each spatial axis
Pads = Sequence[tuple[int, int]]


def convolve(x: Array, w: Array, *, strides: Sizes, pads: Pads, dilation: Sizes, groups: int) -> Array:
    """y[p] = Σ_d x[strides·p + dilation·d] w[d].

    On a CPU it is one matrix product of all windows side by side: there XLA compiles the gradients of a convolution
    inside a loop, where every training step is, to a plain loop over numbers. A step with both gradients for windows of
    3 × 3 on 32 images of 32 × 32 × 64 took 3300 ms so, and 85 as a product; LeNet's step 15 ms, and 4. The price is
    memory: math.prod(window) times that of x.

    Args:
      x: (batch, *spatial, inputs)
      w: (*window, inputs / groups, features)
      strides: step between windows.
      pads: zeros before and after.
      dilation: distance between the window's taps.
      groups: of channels, which do not see each other.
    """
    general = partial(as_convolution, strides=strides, pads=pads, dilation=dilation, groups=groups)
    if groups > 1:
        return general(x, w)
    windows = partial(as_product, strides=strides, pads=pads, dilation=dilation)
    y: Array = lax.platform_dependent(x, w, cpu=windows, default=general)
    return y


def as_convolution(x: Array, w: Array, *, strides: Sizes, pads: Pads, dilation: Sizes, groups: int) -> Array:
    """As the primitive, for which accelerators have kernels."""
    rank = x.ndim - 2
    image, kernel = (0, rank + 1, *range(1, rank + 1)), (rank + 1, rank, *range(rank))
    return lax.conv_general_dilated(
        x,
        w,
        strides,
        pads,
        rhs_dilation=dilation,
        dimension_numbers=lax.ConvDimensionNumbers(image, kernel, image),
        feature_group_count=groups,
    )


def as_product(x: Array, w: Array, *, strides: Sizes, pads: Pads, dilation: Sizes) -> Array:
    """As one dense layer at every place of the grid."""
    *window, inputs, features = w.shape
    places = output_sizes(x.shape[1:-1], window, strides, pads, dilation)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    for i, (width, n, step, gap) in reversed(list(enumerate(zip(window, places, strides, dilation, strict=True)))):
        reach = (n - 1) * step + 1
        taps = [lax.slice_in_dim(x, tap * gap, tap * gap + reach, step, axis=i + 1) for tap in range(width)]
        x = jnp.concatenate(taps, axis=-1)  # channels of all taps side by side, in the order of w
    return affine(x, w.reshape(math.prod(window) * inputs, features), None)


def output_sizes(sizes: Sizes, window: Sizes, strides: Sizes, pads: Pads, dilation: Sizes) -> list[int]:
    """How many windows fit along each axis; below 1 where none does."""
    return [
        (size + before + after - (width - 1) * gap - 1) // step + 1
        for size, width, step, (before, after), gap in zip(sizes, window, strides, pads, dilation, strict=True)
    ]
