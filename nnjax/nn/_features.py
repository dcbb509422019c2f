"""Choose dtypes, and make, check and broadcast parameters of the feature axis: a scale and a bias."""

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from nnjax import checks
from nnjax.types import Params


def per_feature(vector: Array, x: Array) -> Array:
    """Reshape a vector (features,) to (1, ..., 1, features), so that it broadcasts to `x` without rank promotion."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


def wide_dtype(dtype: DTypeLike) -> DTypeLike:
    """Return the dtype for statistics, sums and random draws: float32 instead of floats with fewer than 32 bits."""
    return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) and jnp.dtype(dtype).itemsize < 4 else dtype


def param_dtype(x: Array) -> DTypeLike:
    """Return the dtype of a layer's parameters: the input's dtype if floating, else JAX's default float."""
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)


def init_scale(where: str, x: Array, *, bias: bool = True, initial: float | Array = 1.0) -> Params:
    """Return the scale (features,) and, with `bias`, the bias of a layer; check its input."""
    checks.batched(where, x)
    scale = {"scale": jnp.full(x.shape[-1:], initial, param_dtype(x))}
    return scale | ({"bias": jnp.zeros(x.shape[-1:], param_dtype(x))} if bias else {})


def check_scale(where: str, x: Array, params: Params, *, bias: bool = True) -> None:
    """Check the input of a layer that has a scale (features,) and, with `bias`, a bias."""
    checks.batched(where, x)
    checks.leaves(where, "params", params, {"scale": (None,)} | ({"bias": (None,)} if bias else {}))
    checks.features(where, x, params["scale"].shape[0])
