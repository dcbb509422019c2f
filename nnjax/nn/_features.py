"""Choose dtypes for parameters and statistics, and broadcast parameters along the feature axis."""

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike


def per_feature(vector: Array, x: Array) -> Array:
    """Reshape a vector (features,) to (1, ..., 1, features), so that it broadcasts to `x` without rank promotion."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


def wide_dtype(x: Array) -> DTypeLike:
    """Return the dtype for statistics and random draws: the floating dtype of `x`, or float32 if that is wider."""
    return x.dtype if x.dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def param_dtype(x: Array) -> DTypeLike:
    """Return the dtype of a layer's parameters: the input's dtype if floating, else JAX's default float."""
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
