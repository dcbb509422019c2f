"""Losses, one number per example.

Each returns an array of shape (batch,). The caller takes the mean, so that examples can be weighted. Prediction and
target must have equal shapes; they are not broadcast. Bind options with `functools.partial`, as in
`partial(losses.cross_entropy, label_smoothing=0.1)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array, lax

from nnjax import checks

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["binary_cross_entropy", "cross_entropy", "huber", "mean_squared_error", "squared_error"]


def squared_error(prediction: Array, target: Array) -> Float[Array, " batch"]:
    """Return the squared error, summed over outputs (`optax.squared_error` does not sum).

        loss = Σ_k (prediction_k - target_k)²

    Args:
      prediction: Real numbers of shape (batch, ...).
      target: Real numbers of the same shape.

    Raises:
      ValueError: if the shapes differ.

    >>> losses.squared_error(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 0.0]]))
    Array([5.], dtype=float32)
    """
    _same_shape("squared_error", prediction, target)
    return _per_example(jnp.square(prediction - _like(target, prediction))).sum(-1)


def mean_squared_error(prediction: Array, target: Array) -> Float[Array, " batch"]:
    """Return the squared error, averaged over outputs.

        loss = 1/K Σ_k (prediction_k - target_k)²

    Args:
      prediction: Real numbers of shape (batch, ...).
      target: Real numbers of the same shape.

    Raises:
      ValueError: if the shapes differ.

    >>> losses.mean_squared_error(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 0.0]]))
    Array([2.5], dtype=float32)
    """
    _same_shape("mean_squared_error", prediction, target)
    return _per_example(jnp.square(prediction - _like(target, prediction))).mean(-1)


def huber(prediction: Array, target: Array, *, delta: float | Array = 1.0) -> Float[Array, " batch"]:
    """Return Huber's loss, summed over outputs: quadratic for small errors, linear for large ones.

        loss = Σ_k  ½ e²  if |e| ≤ δ  else  δ (|e| - ½ δ),   e = prediction_k - target_k

    Args:
      prediction: Real numbers of shape (batch, ...).
      target: Real numbers of the same shape.
      delta: Error at which the loss changes from quadratic to linear, > 0.

    Raises:
      ValueError: if the shapes differ, or if delta ≤ 0.

    >>> losses.huber(jnp.array([[0.5, 3.0]]), jnp.array([[0.0, 0.0]]))
    Array([2.625], dtype=float32)

    Source: Huber 1964.
    """
    _same_shape("huber", prediction, target)
    delta = jnp.asarray(checks.in_range("huber", "delta", delta, "(0, inf)"), prediction.dtype)
    error = jnp.abs(prediction - _like(target, prediction))
    inner = jnp.minimum(error, delta)
    return _per_example(inner * (error - 0.5 * inner)).sum(-1)


def cross_entropy(prediction: Array, target: Array, *, label_smoothing: float | Array = 0.0) -> Float[Array, " batch"]:
    """Return the cross-entropy between the labels and the softmax of the prediction.

        loss = -Σ_k q_k log softmax(prediction)_k,   q = (1 - s) · target + s / classes

    Args:
      prediction: Logits of shape (batch, ..., classes), without softmax. The loss is averaged over the axes between
        batch and classes (the positions of a sequence).
      target: Integer labels of shape (batch, ...) in 0 … classes - 1, or probabilities of the same shape as the logits.
        A label outside this range gives NaN; `train.fit` raises an error for it.
      label_smoothing: Share s of the probability that is spread evenly over the classes, in [0, 1].

    Raises:
      ValueError: if the shapes do not match.
      TypeError: if the labels are not integers.

    >>> losses.cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1]))
    Array([0.6931472], dtype=float32)
    """
    smoothing = checks.in_range("cross_entropy", "label_smoothing", label_smoothing, "[0, 1]")
    smoothing = jnp.asarray(smoothing, prediction.dtype)
    check_labels("cross_entropy", prediction, target)
    # Shift first: otherwise large logits lose digits when the normaliser and the label's logit nearly cancel
    z = prediction - lax.stop_gradient(prediction.max(-1, keepdims=True))
    normaliser = jnp.log(jnp.exp(z).sum(-1))
    if jnp.issubdtype(target.dtype, jnp.integer):
        loss = normaliser - label_logits(z, target)
    else:
        probabilities = _like(target, z)
        # For a class that is masked by a logit of -inf, 0 · -inf would be NaN
        products = jnp.where(probabilities == 0, jnp.zeros_like(z), z * probabilities)
        loss = normaliser * probabilities.sum(-1) - products.sum(-1)
    if not (isinstance(label_smoothing, (int, float)) and label_smoothing == 0):
        loss = (1 - smoothing) * loss + smoothing * (normaliser - z.mean(-1))
    return _per_example(loss).mean(-1)


def binary_cross_entropy(prediction: Array, target: Array) -> Float[Array, " batch"]:
    """Return the binary cross-entropy, summed over outputs.

        loss = -Σ_k  t_k log σ(z_k) + (1 - t_k) log(1 - σ(z_k)),   z = prediction

    Args:
      prediction: Logits of shape (batch, ...), without sigmoid.
      target: Labels 0 and 1 (integers, booleans or floats), or probabilities, of the same shape.

    Raises:
      ValueError: if the shapes differ.

    >>> losses.binary_cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([[1, 0]]))
    Array([1.3862944], dtype=float32)
    """
    _same_shape("binary_cross_entropy", prediction, target)
    t = target.astype(prediction.dtype)
    # With log σ(z) = -softplus(-z) and 1 - σ(z) = σ(-z), no logarithm of zero occurs and large z keep their digits
    return _per_example(t * jax.nn.softplus(-prediction) + (1 - t) * jax.nn.softplus(prediction)).sum(-1)


def check_labels(where: str, prediction: Array, target: Array) -> None:
    """Raise unless `target` is one integer label per row of logits, or probabilities of the logits' shape."""
    if prediction.ndim < 2:
        raise ValueError(f"{where}: prediction must be logits (batch, classes), got {tuple(prediction.shape)}")
    rows = prediction.shape[:-1]
    if jnp.issubdtype(target.dtype, jnp.integer):
        if target.shape == rows:
            return
        hint = "; pass y.argmax(-1) for one-hot rows" if target.shape == prediction.shape else ""
        hint = "; use y[:, 0]" if target.shape == (*rows, 1) else hint
        raise ValueError(f"{where}: integer labels must be {rows}, got {tuple(target.shape)}{hint}")
    if not jnp.issubdtype(target.dtype, jnp.floating):
        raise TypeError(f"{where}: target must be integer labels or probabilities, got {target.dtype}")
    if target.shape == rows:
        raise TypeError(f"{where}: labels must be integers, got {target.dtype}; for real targets use squared_error")
    if target.shape != prediction.shape:
        raise ValueError(
            f"{where}: probabilities must have the shape of the logits {tuple(prediction.shape)}, "
            f"got {tuple(target.shape)}"
        )


def label_logits(prediction: Array, target: Array) -> Array:
    """Return the logit of each label, (batch, ..., classes) -> (batch, ...); NaN if the label is not a class."""
    # A negative index would count from the end
    labels = jnp.where(target < 0, prediction.shape[-1], target)[..., None]
    return jnp.take_along_axis(prediction, labels, -1, mode="fill", fill_value=jnp.nan)[..., 0]


def _same_shape(where: str, prediction: Array, target: Array) -> None:
    if prediction.shape != target.shape:
        hint = ""
        if prediction.shape == (*target.shape, 1):
            hint = "; use y[:, None], or end the network with nn.reshape(())"
        raise ValueError(
            f"{where}: prediction and target must have the same shape, got {tuple(prediction.shape)} "
            f"and {tuple(target.shape)}{hint}"
        )
    if prediction.ndim == 0:
        raise ValueError(f"{where}: the first axis must be the batch, got scalars; use prediction[None], target[None]")


def _like(target: Array, prediction: Array) -> Array:
    return target.astype(prediction.dtype)


def _per_example(values: Array) -> Array:
    return values.reshape(values.shape[0], -1)
