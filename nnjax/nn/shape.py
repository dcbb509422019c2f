"""Build layers that only change the shape."""

import math
from collections.abc import Sequence

from jax import Array

from nnjax import checks
from nnjax.nn.as_layer import as_layer
from nnjax.types import Layer


def flatten() -> Layer:
    """Flatten each example: (batch, ...) -> (batch, features).

    Raises:
      ValueError: if x has no axis other than the batch axis.

    >>> y, _ = nn.flatten().apply((), (), jnp.ones((32, 8, 8)), train=False)
    >>> y.shape
    (32, 64)
    """

    def function(x: Array) -> Array:
        checks.numbers("flatten", x)
        if x.ndim < 2:
            raise ValueError(f"flatten: x must be (batch, ...), got {tuple(x.shape)}; use x[None] for one example")
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))

    return as_layer(function)._replace(name="flatten")


def reshape(shape: Sequence[int]) -> Layer:
    """Reshape each example: (batch, ...) -> (batch, *shape).

    Args:
      shape: The new shape of one example, without the batch axis; `()` turns (batch, 1) into (batch,).

    Raises:
      TypeError: if the shape is not a sequence of integers.
      ValueError: if a size is < 1; in `apply`, if an example has a different number of elements.

    >>> y, _ = nn.reshape((8, 8, 1)).apply((), (), jnp.ones((32, 64)), train=False)
    >>> y.shape
    (32, 8, 8, 1)
    """
    if isinstance(shape, int):
        raise TypeError(f"reshape: shape must be a tuple, got {shape}; use ({shape},)")
    shape = checks.items("reshape", "shape", shape, "(8, 8, 1)")
    shape = tuple(checks.positive_int("reshape", "shape", size) for size in shape)
    name = f"reshape({shape})"

    def function(x: Array) -> Array:
        checks.numbers(name, x)
        if math.prod(x.shape[1:]) != math.prod(shape):
            raise ValueError(f"{name}: one example has shape {x.shape[1:]}, which has a different size than {shape}")
        return x.reshape(x.shape[0], *shape)

    return as_layer(function)._replace(name=name)
