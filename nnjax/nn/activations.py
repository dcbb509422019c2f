"""Functions of the lecture that read as their formula; `jax.nn` has the rest (`relu`, `gelu`, `tanh`, …)."""

import jax.numpy as jnp
from jax import Array, lax


def softmax(x: Array) -> Array:
    """Numbers as probabilities.

        softmax(x)_i = exp(x_i) / Σ_j exp(x_j)

    The largest entry is subtracted first: it changes nothing but keeps exp from overflowing.

    Args:
      x: (..., classes), any floats.

    Returns:
      (..., classes), in [0, 1], each row of sum 1.

    >>> nn.softmax(jnp.array([0.0, 0.0]))
    Array([0.5, 0.5], dtype=float32)
    """
    powers = jnp.exp(x - lax.stop_gradient(x.max(-1, keepdims=True)))
    return powers / powers.sum(-1, keepdims=True)


def step(x: Array) -> Array:
    """Rosenblatt's step: 1 where x > 0, else 0. Its gradient is zero everywhere, which is why ReLU took its place.

    Args:
      x: any shape.

    >>> nn.step(jnp.array([-1.0, 0.0, 2.0]))
    Array([0., 0., 1.], dtype=float32)

    Source: Rosenblatt 1958.
    """
    return (x > 0).astype(x.dtype)
