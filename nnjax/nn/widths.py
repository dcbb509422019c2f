"""Mask padded layers to their true widths, which may be traced, so `jax.vmap` can sweep widths in one program.

A network is padded to its largest widths. Along each padded axis, the first `width` features are true and the others
are padding, which stays zero and has zero gradient. `layer_norm`, `initializer_for` and `mlp` use this module.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from nnjax import checks
from nnjax.nn._features import per_feature
from nnjax.nn.as_layer import as_layer
from nnjax.types import Layer

Width = int | Array  # an integer, possibly traced


def first_features(width: Width) -> Layer:
    """Keep the first `width` features and zero the others.

        y_i = x_i  if i < width  else 0

    With this layer after every activation, a padded network has the same outputs and gradients as the narrower network,
    and its padding has zero gradient. The layer must follow the activation because activations such as softplus do not
    map 0 to 0. `mlp(widths=…)` inserts these layers.

    Args:
      width: Number of features to keep, 1 … features. It may be a traced integer, so that `jax.vmap` can sweep it.

    Shapes: x (batch, ..., features) -> y, the same shape.

    Raises:
      TypeError: if the width is not an integer.
      ValueError: if the width is not traced and is outside 1 … features.

    >>> nn.first_features(2).apply((), (), jnp.ones((1, 4)), train=False)[0]
    Array([[1., 1., 0., 0.]], dtype=float32)
    """
    width = check_width("first_features", "width", width)
    name = "first_features" if checks.is_traced(width) else f"first_features({width})"

    def function(x: Array) -> Array:
        checks.batched(name, x)
        check_width(name, "width", width, x.shape[-1])
        return keep_first(x, width)

    return as_layer(function)._replace(name=name)


def keep_first(x: Array, width: Width | None) -> Array:
    """Zero all but the first `width` features of `x` (..., features); None keeps all."""
    return x if width is None else jnp.where(per_feature(_is_true(width, x.shape[-1]), x), x, jnp.zeros_like(x))


def keep_block(w: Array, inputs: Width | None, outputs: Width | None) -> Array:
    """Zero the weights (..., inputs, outputs) beyond the true widths; None keeps all entries along an axis."""
    if inputs is None and outputs is None:
        return w
    rows, columns = (
        size if width is None else width for size, width in zip(w.shape[-2:], (inputs, outputs), strict=True)
    )
    true = _is_true(rows, w.shape[-2])[:, None] & _is_true(columns, w.shape[-1])[None]
    return jnp.where(true.reshape((1,) * (w.ndim - 2) + true.shape), w, jnp.zeros_like(w))


def narrow_index(shape: tuple[int, ...], inputs: Width | None, outputs: Width | None) -> Array:
    """Return the flat index that each number of a padded array has in the array of the true widths.

        k = (f · inputs + i) · outputs + o

    JAX draws the k-th number of an array from the key and k alone. Two arrays of different widths therefore begin with
    the same numbers, and this index selects the numbers of the narrow array. In the padding, the index is arbitrary.

    Args:
      shape: (..., padded inputs, padded outputs).
      inputs: True number of inputs, or None if they are not padded.
      outputs: True number of outputs, or None if they are not padded.
    """
    rows, columns = shape[-2] if inputs is None else inputs, shape[-1] if outputs is None else outputs
    block = (math.prod(shape[:-2]), *shape[-2:])
    field, row, column = (lax.broadcasted_iota(jnp.int32, block, axis) for axis in range(3))
    index = (field * jnp.asarray(rows, jnp.int32) + row) * jnp.asarray(columns, jnp.int32) + column
    return index.reshape(shape)


def moments(x: Array, width: Width | None) -> tuple[Array, Array]:
    """Return the mean and variance over the first `width` features of `x`, of shape (..., 1), in two passes."""
    if width is None:
        mean = x.mean(-1, keepdims=True)
        return mean, jnp.square(x - mean).mean(-1, keepdims=True)
    x, count = keep_first(x, width), jnp.asarray(width, x.dtype)
    mean = x.sum(-1, keepdims=True) / count
    return mean, keep_first(jnp.square(x - mean), width).sum(-1, keepdims=True) / count


def check_width(where: str, name: str, value: Any, padded: int | None = None) -> Width:
    """Return a width as an int; raise unless it is an integer in 1 … `padded`. Traced integers are not checked."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or isinstance(value, np.generic):
        value = checks.positive_int(where, name, value)
    elif not jnp.issubdtype(dtype, jnp.integer) or value.ndim:
        hint = "; use jax.vmap for several widths" if value.ndim else ""
        raise TypeError(f"{where}: {name} must be one integer, got {dtype} of shape {tuple(value.shape)}{hint}")
    if checks.is_traced(value):
        return value
    known = checks.positive_int(where, name, int(value))
    if padded is not None and known > padded:
        raise ValueError(f"{where}: {name} must be in 1 … {padded}, the padded width, got {known}")
    return known


def check_widths(
    where: str,
    hidden: Sequence[int],
    widths: Sequence[Width | None] | Array | None,
    activation: Callable[[Array], Array],
) -> list[Width | None]:
    """Return the true widths of the input and of each hidden layer; None for layers without padding."""
    if widths is None:
        return [None] * (len(hidden) + 1)
    if not hasattr(widths, "__len__") or getattr(widths, "shape", (0,)) == ():
        raise TypeError(f"{where}: widths must be a sequence, one width per hidden layer, got {widths}")
    if len(widths) != len(hidden):
        raise ValueError(
            f"{where}: widths must be one per hidden layer, got {len(widths)} widths for {len(hidden)} layers"
        )
    try:
        jax.eval_shape(activation, jax.ShapeDtypeStruct((), jnp.result_type(float)))
    except Exception as error:
        raise ValueError(
            f"{where}: with widths the activation must be elementwise, otherwise it reads the padding; "
            f"{getattr(activation, '__name__', activation)} does not accept a single number"
        ) from error
    checked = (
        None if width is None else check_width(where, f"widths[{i}]", width, padded)
        for i, (width, padded) in enumerate(zip(widths, hidden, strict=True))
    )
    return [None, *checked]


def _is_true(width: Width, padded: int) -> Array:
    return jnp.arange(padded, dtype=jnp.int32) < jnp.asarray(width, jnp.int32)
