"""Convolution over any number of spatial axes."""

from collections.abc import Sequence
from typing import Any

import jax
from jax import Array, lax
from jax.nn.initializers import zeros

from nnjax import checks
from nnjax.nn._convolve import convolve, output_sizes
from nnjax.nn.initializers import he_normal
from nnjax.nn.shape import param_dtype, per_feature
from nnjax.types import Initializer, Key, Layer, Params, State

Padding = str | Sequence[tuple[int, int]]


def conv(
    features: int,
    window: int | Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    bias: bool = True,
    w_init: Initializer = he_normal(),
    b_init: Initializer = zeros,
) -> Layer:
    """Convolution, channels last: the same dense layer at every place of a grid, on the window around it.

        y[p] = Σ_d x[strides·p + dilation·d] w[d] + b        (a cross-correlation, as everywhere in deep learning)

    Args:
      features: output channels.
      window: size of the window along each spatial axis; one number for all axes.
      strides: step between windows, one number or one for each axis.
      padding: "SAME", "VALID", or (before, after) for each spatial axis.
      dilation: distance between the window's taps.
      groups: channels are split into so many groups that do not see each other; must divide inputs and features.
      bias: whether there is a b.
      w_init: initialiser of `w`; He's suits ReLU (see `dense`).
      b_init: initialiser of `b`.

    Shapes: x (batch, *spatial, inputs) -> y (batch, *spatial', features).
    Parameters `{"w": (*window, inputs / groups, features), "b": (features,)}`.

    Raises:
      ValueError: for sizes < 1, an unknown padding, groups that do not divide the channels, or an input of another
        rank or width than the parameters.

    >>> layer = nn.conv(6, (5, 5))
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((2, 28, 28, 1)))
    >>> layer.apply(params, state, jnp.ones((2, 28, 28, 1)), train=False)[0].shape
    (2, 28, 28, 6)
    """
    name = f"conv({features}, {window})"
    features = checks.positive_int("conv", "features", features)
    groups = checks.positive_int(name, "groups", groups)
    if features % groups:
        raise ValueError(f"{name}: groups must divide features, got {groups} groups for {features} features")
    per_axis(name, "window", window)
    per_axis(name, "strides", strides)
    per_axis(name, "dilation", dilation)
    check_padding(name, padding)

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        key = checks.key(name, key, x)
        size = spatial(name, x, window, "window")
        if x.shape[-1] % groups:
            raise ValueError(f"{name}: groups must divide the input's channels, got {groups} for {x.shape[-1]}")
        shape = (*size, x.shape[-1] // groups, features)
        params = {"w": w_init(jax.random.fold_in(key, 0), shape, param_dtype(x))}
        if bias:
            params["b"] = b_init(jax.random.fold_in(key, 1), (features,), param_dtype(x))
        return params, ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        rank = params["w"].ndim - 2
        checks.batched(name, x, "(batch, *spatial, channels)", rank + 2)
        checks.features(name, x, params["w"].shape[-2] * groups)
        steps, gaps = spatial(name, x, strides, "strides"), spatial(name, x, dilation, "dilation")
        sizes, window = x.shape[1:-1], params["w"].shape[:-2]
        pads = padding
        if isinstance(pads, str):
            reach = [(width - 1) * gap + 1 for width, gap in zip(window, gaps, strict=True)]
            pads = lax.padtype_to_pads(sizes, reach, steps, pads)
        if len(pads) != rank:
            raise ValueError(f"{name}: padding {pads} is for {len(pads)} spatial axes, x {tuple(x.shape)} has {rank}")
        if min(output_sizes(sizes, window, steps, pads, gaps)) < 1:
            raise ValueError(f"{name}: the window does not fit into the input {tuple(x.shape)}")
        y = convolve(x, params["w"], strides=steps, pads=pads, dilation=gaps, groups=groups)
        return (y + per_feature(params["b"], y) if bias else y), state

    return Layer(name, init, apply)


def per_axis(where: str, name: str, value: int | Sequence[int]) -> None:
    """`value` is one positive integer, or several."""
    for item in _items(value):
        checks.positive_int(where, name, item)


def check_padding(where: str, padding: Padding) -> None:
    """`padding` is "SAME", "VALID", or pairs of numbers ≥ 0."""
    if isinstance(padding, str):
        checks.one_of(where, "padding", padding, ("SAME", "VALID"))
    elif not all(isinstance(pair, Sequence) and len(pair) == 2 and min(pair) >= 0 for pair in _items(padding)):
        raise ValueError(f"{where}: padding must be (before, after) for each spatial axis, got {padding}")


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) else [value]


def spatial(where: str, x: Array, value: int | Sequence[int], name: str) -> tuple[int, ...]:
    """`value` for each spatial axis of `x` (batch, *spatial, channels)."""
    rank = len(value) if isinstance(value, Sequence) else 1
    checks.batched(where, x, "(batch, *spatial, channels)", rank + 2)
    axes = x.ndim - 2
    if not isinstance(value, Sequence):
        return (value,) * axes
    if len(value) != axes:
        raise ValueError(f"{where}: {name} {tuple(value)} is for {rank} spatial axes, x {tuple(x.shape)} has {axes}")
    return tuple(value)
