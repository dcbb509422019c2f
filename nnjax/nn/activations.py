"""Activation functions written as their formula; `jax.nn` has the others (`relu`, `gelu`, `tanh`, …)."""

import jax.numpy as jnp
from jax import Array, lax


def softmax(x: Array) -> Array:
    """Turn logits into probabilities.

        softmax(x)_i = exp(x_i) / Σ_j exp(x_j)

    The largest entry is subtracted first, which leaves the result unchanged and keeps exp from overflowing.

    Args:
      x: Logits of shape (..., classes).

    Returns:
      Probabilities in [0, 1] of shape (..., classes), which sum to 1 over the classes.

    >>> nn.softmax(jnp.array([0.0, 0.0]))
    Array([0.5, 0.5], dtype=float32)
    """
    powers = jnp.exp(x - lax.stop_gradient(x.max(-1, keepdims=True)))
    return powers / powers.sum(-1, keepdims=True)


def heaviside(x: Array) -> Array:
    """Return 1 where x > 0 and 0 elsewhere: Rosenblatt's activation.

    Its gradient is zero everywhere, so that gradient descent cannot train through it.

    Args:
      x: An array of any shape.

    >>> nn.heaviside(jnp.array([-1.0, 0.0, 2.0]))
    Array([0., 0., 1.], dtype=float32)

    Source: Rosenblatt 1958.
    """
    return (x > 0).astype(x.dtype)
