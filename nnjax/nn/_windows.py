"""Place sliding windows along the spatial axes, for convolution and pooling."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import Array, lax

from nnjax import checks
from nnjax.types import Params

PerAxis = int | Sequence[int]  # one number for all spatial axes, or one per axis
Padding = str | Sequence[tuple[int, int]]


class Windows(NamedTuple):
    """Arguments of a convolution or pooling, as passed by the user."""

    name: str  # name of the user's argument for the size, for error messages
    size: PerAxis
    strides: PerAxis
    padding: Padding
    dilation: PerAxis = 1


class Grid(NamedTuple):
    """Windows placed on an input; each field has one entry per spatial axis."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    counts: tuple[int, ...]  # number of windows


def check_windows(where: str, windows: Windows) -> Windows:
    """Return the windows; raise unless sizes, strides and dilation are positive integers and the padding is valid."""
    for name, value in ((windows.name, windows.size), ("strides", windows.strides), ("dilation", windows.dilation)):
        for item in _items(value):
            checks.positive_int(where, name, item)
    padding = windows.padding
    if isinstance(padding, str):
        checks.one_of(where, "padding", padding, ("SAME", "VALID"))
    elif not all(
        isinstance(pair, Sequence) and len(pair) == 2 and all(map(_is_count, pair)) for pair in _items(padding)
    ):
        raise ValueError(f"{where}: padding must be (before, after) for each spatial axis, got {padding}")
    return windows


def grid(where: str, x: Array, windows: Windows) -> Grid:
    """Place the windows on `x` (batch, *spatial, channels); raise ValueError if they do not fit."""
    size = per_axis(where, x, windows.name, windows.size)
    strides = per_axis(where, x, "strides", windows.strides)
    dilation = per_axis(where, x, "dilation", windows.dilation)
    spatial, pads = x.shape[1:-1], windows.padding
    reach = [(width - 1) * gap + 1 for width, gap in zip(size, dilation, strict=True)]
    if isinstance(pads, str):
        pads = lax.padtype_to_pads(spatial, reach, strides, pads)
    if len(pads) != len(spatial):
        raise ValueError(
            f"{where}: padding {pads} is for {len(pads)} spatial axes, x {tuple(x.shape)} has {len(spatial)}"
        )
    counts = tuple(
        (length + sum(pad) - span) // step + 1
        for length, pad, span, step in zip(spatial, pads, reach, strides, strict=True)
    )
    if min(counts) < 1:
        raise ValueError(f"{where}: the window does not fit into the input {tuple(x.shape)}")
    return Grid(size, strides, tuple(pads), dilation, counts)


def refuse_padding_alone(where: str, x: Array, places: Grid) -> None:
    """Raise ValueError if a window contains only padding; checking the first and last window of each axis suffices."""
    for axis, length in enumerate(x.shape[1:-1]):
        first = -places.pads[axis][0]
        last = first + (places.counts[axis] - 1) * places.strides[axis]
        if any(min(start + places.size[axis], length) <= max(start, 0) for start in (first, last)):
            raise ValueError(
                f"{where}: a window is entirely in the padding {places.pads} of x {tuple(x.shape)}; "
                "the padding must be smaller than the window"
            )


def per_axis(where: str, x: Array, name: str, value: PerAxis) -> tuple[int, ...]:
    """Return `value` as a tuple with one entry per spatial axis of `x` (batch, *spatial, channels).

    Raises:
      ValueError: if `value` is a sequence of a different length, or if x has no spatial axis.
    """
    rank = len(value) if isinstance(value, Sequence) else 1
    checks.batched(where, x, "(batch, *spatial, channels)", rank + 2)
    axes = x.ndim - 2
    if not isinstance(value, Sequence):
        return (value,) * axes
    if rank != axes:
        raise ValueError(f"{where}: {name} {tuple(value)} is for {rank} spatial axes, x {tuple(x.shape)} has {axes}")
    return tuple(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= 0


def kernel_sizes(kernel_size: PerAxis, params: Params) -> tuple[int, ...]:
    """Return the kernel size along each spatial axis; an integer is repeated for every spatial axis of the weights."""
    if isinstance(kernel_size, Sequence):
        return tuple(kernel_size)
    w = params.get("w") if isinstance(params, Mapping) else None
    return (kernel_size,) * (1 if w is None else max(np.ndim(w) - 2, 1))


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) else [value]
