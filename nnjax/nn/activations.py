"""Define activation functions by their formulas; `jax.nn` has the others (`relu`, `gelu`, `tanh`, …)."""

import jax.numpy as jnp
from jax import Array, lax

from nnjax import checks


def softmax(x: Array) -> Array:
    """Turn logits into probabilities.

        softmax(x)_i = exp(x_i) / Σ_j exp(x_j)

    The largest entry is subtracted first, which keeps exp from overflowing and leaves the result unchanged.

    Args:
      x: Logits of shape (..., classes), of any real dtype.

    Returns:
      Probabilities in [0, 1] of shape (..., classes), which sum to 1 over the classes. They have the dtype of x if it
      is floating-point, and JAX's default float dtype otherwise.

    Raises:
      ValueError: if there are no classes.
      TypeError: if x is not an array of real numbers.

    >>> nn.softmax(jnp.array([0.0, 0.0]))
    Array([0.5, 0.5], dtype=float32)
    """
    (x,) = checks.real_arrays("softmax", {"x": x})
    if x.shape[-1:] in ((), (0,)):
        raise ValueError(f"softmax: x must be (..., classes), got {x.shape}")
    powers = jnp.exp(x - lax.stop_gradient(x.max(-1, keepdims=True)))
    return powers / powers.sum(-1, keepdims=True)


def heaviside(x: Array) -> Array:
    """Return Rosenblatt's step function: 1 for x > 0, 0 for x ≤ 0, and NaN for NaN.

    Its gradient is zero everywhere, so gradient descent cannot train through it.

    Args:
      x: An array of any shape and real dtype. The result is floating.

    Raises:
      TypeError: if x is not an array of real numbers.

    >>> nn.heaviside(jnp.array([-1.0, 0.0, 2.0]))
    Array([0., 0., 1.], dtype=float32)

    Source: Rosenblatt 1958.
    """
    (x,) = checks.real_arrays("heaviside", {"x": x})
    return jnp.where(jnp.isnan(x), x, (x > 0).astype(x.dtype))
