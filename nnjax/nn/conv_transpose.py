"""Build transposed convolutions, which enlarge their input."""

from collections.abc import Sequence
from typing import cast

import jax.numpy as jnp
from jax import Array, lax
from jax.nn.initializers import zeros

from nnjax import checks
from nnjax.nn._affine import affine_shapes, check_initialisers, init_affine
from nnjax.nn._features import per_feature
from nnjax.nn._windows import Padding, PerAxis, Windows, check_windows, kernel_sizes, per_axis
from nnjax.nn.initializers import he_normal
from nnjax.types import Initializer, Key, Layer, Params, State


def conv_transpose(
    features: int,
    kernel_size: PerAxis,
    *,
    strides: PerAxis = 1,
    padding: Padding = "SAME",
    bias: bool = True,
    w_init: Initializer = he_normal(),
    b_init: Initializer = zeros,
) -> Layer:
    """Add a scaled window to the output for each input position: the transpose of `conv`, with channels last.

        y[strides·p + d - before] += x[p] w[d],   then   y + b

    As in torch and Keras, it maps the output gradient of a convolution to its input gradient. Flax's ConvTranspose
    reverses the window.

    Args:
      features: Number of output channels.
      kernel_size: Size of the window along each spatial axis; an integer means the same size for all axes.
      strides: Step between windows in the output, an integer or one per axis.
      padding: Number of positions to cut off at both ends of the output: "VALID" cuts none, "SAME" leaves
        strides · length positions, and (before, after) sets the numbers for each spatial axis. Torch's padding=p
        corresponds to (p, p); padding=p with output_padding=q ≤ p corresponds to (p, p - q).
      bias: True to add b.
      w_init: Initialiser of `w`. The default is He's, which suits ReLU (see `dense`).
      b_init: Initialiser of `b`.

    Shapes: x (batch, *spatial, inputs) -> y (batch, *spatial', features), where
    spatial' = (spatial - 1) · strides + kernel_size - before - after.
    Parameters `{"w": (*kernel_size, inputs, features), "b": (features,)}`.

    Raises:
      ValueError: if a size is < 1, if the padding is unknown or cuts off the whole output, or if the axes or channels
        of x do not match the parameters.
      TypeError: if a size is not an integer, or x is not floating-point.

    >>> layer = nn.conv_transpose(3, (4, 4), strides=2)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((2, 7, 7, 8)))
    >>> layer.apply(params, state, jnp.ones((2, 7, 7, 8)), train=False)[0].shape
    (2, 14, 14, 3)

    Source: Zeiler et al. 2010; Dumoulin and Visin 2016, arXiv:1603.07285 (formula for the shapes).
    """
    name = f"conv_transpose({features}, {kernel_size})"
    features = checks.positive_int("conv_transpose", "features", features)
    bias = checks.flag(name, "bias", bias)
    check_initialisers(name, w_init, b_init)
    windows = check_windows(name, Windows("kernel_size", kernel_size, strides, padding))

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        key = checks.key(name, key, x)
        size = per_axis(name, x, windows.name, kernel_size)
        return init_affine(key, x, (*size, x.shape[-1], features), w_init, b_init if bias else None), ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        shapes = affine_shapes(*kernel_sizes(kernel_size, params), None, features, bias=bias)
        checks.leaves(name, "params", params, shapes)
        w = params["w"]
        checks.batched(name, x, "(batch, *spatial, channels)", w.ndim)
        checks.features(name, x, w.shape[-2])
        steps = per_axis(name, x, "strides", windows.strides)
        cuts = _cuts(name, x, w.shape[:-2], steps, windows.padding)
        axes = range(w.ndim - 2)
        numbers = lax.conv_dimension_numbers(x.shape, w.shape, _layout(w.ndim - 2))
        y = lax.conv_general_dilated(
            x,
            jnp.flip(w, tuple(axes)),
            window_strides=(1,) * len(axes),
            padding=[(w.shape[i] - 1 - cuts[i][0], w.shape[i] - 1 - cuts[i][1]) for i in axes],
            lhs_dilation=steps,
            dimension_numbers=numbers,
        )
        return (y + per_feature(params["b"], y) if bias else y), state

    return Layer(name, init, apply)


def _cuts(
    name: str, x: Array, size: tuple[int, ...], strides: tuple[int, ...], padding: Padding
) -> list[tuple[int, int]]:
    """Return how many positions to cut off at both ends of each spatial axis; a negative number adds zeros."""
    if padding == "VALID":
        return [(0, 0)] * len(size)
    if padding == "SAME":
        surplus = [width - step for width, step in zip(size, strides, strict=True)]
        return [(cut // 2, cut - cut // 2) for cut in surplus]
    cuts = [(before, after) for before, after in cast(Sequence[tuple[int, int]], padding)]
    if len(cuts) != len(size):
        raise ValueError(f"{name}: padding {cuts} is for {len(cuts)} spatial axes, x {tuple(x.shape)} has {len(size)}")
    lengths = [
        (length - 1) * step + width - sum(cut)
        for length, step, width, cut in zip(x.shape[1:-1], strides, size, cuts, strict=True)
    ]
    if min(lengths) < 1:
        raise ValueError(f"{name}: padding {cuts} cuts off the whole output of x {tuple(x.shape)}")
    return cuts


def _layout(axes: int) -> tuple[str, str, str]:
    """Return XLA's layout strings for input, weights and output, channels last."""
    spatial = "".join(chr(ord("0") + i) for i in range(axes))
    return f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"
