"""Losses: how far each prediction is from its target.

Each returns one number per example, (batch,): the caller takes the mean, so that examples can be weighted. Shapes
must be equal; nothing broadcasts. Options are bound by `functools.partial`, as in
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
    """The squared error of the lecture, summed over outputs (`optax.squared_error` leaves them apart).

        loss = Σ_k (prediction_k - target_k)²

    Args:
      prediction: (batch, ...).
      target: the same shape, real numbers.

    Raises:
      ValueError: where the shapes differ.

    >>> losses.squared_error(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 0.0]]))
    Array([5.], dtype=float32)
    """
    _same_shape("squared_error", prediction, target)
    return _per_example(jnp.square(prediction - _like(target, prediction))).sum(-1)


def mean_squared_error(prediction: Array, target: Array) -> Float[Array, " batch"]:
    """The squared error, averaged over outputs.

        loss = 1/K Σ_k (prediction_k - target_k)²

    Args:
      prediction: (batch, ...).
      target: the same shape, real numbers.

    Raises:
      ValueError: where the shapes differ.

    >>> losses.mean_squared_error(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 0.0]]))
    Array([2.5], dtype=float32)
    """
    _same_shape("mean_squared_error", prediction, target)
    return _per_example(jnp.square(prediction - _like(target, prediction))).mean(-1)


def huber(prediction: Array, target: Array, *, delta: float | Array = 1.0) -> Float[Array, " batch"]:
    """Huber's loss, summed over outputs: squared for small errors, linear for large ones.

        loss = Σ_k  ½ e²  if |e| ≤ δ  else  δ (|e| - ½ δ),   e = prediction_k - target_k

    Args:
      prediction: (batch, ...).
      target: the same shape, real numbers.
      delta: where the square goes over into the line, > 0.

    Raises:
      ValueError: where the shapes differ, or for delta ≤ 0.

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
    """The cross-entropy between labels and softmax of the prediction.

        loss = -Σ_k q_k log softmax(prediction)_k,   q = (1 - s) · target + s / classes

    Args:
      prediction: logits (batch, ..., classes), before any softmax.
      target: integer labels (batch, ...) in 0 … classes - 1, or probabilities of the shape of the logits. Axes between
        the batch and the classes (positions of a sequence) are averaged.
      label_smoothing: s in [0, 1], the share that is spread evenly over the classes.

    Raises:
      ValueError: where the shapes do not fit; a label out of range gives NaN, `train.fit` names it beforehand.
      TypeError: for labels that are not integers.

    >>> losses.cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1]))
    Array([0.6931472], dtype=float32)
    """
    smoothing = checks.in_range("cross_entropy", "label_smoothing", label_smoothing, "[0, 1]")
    smoothing = jnp.asarray(smoothing, prediction.dtype)
    check_labels("cross_entropy", prediction, target)
    # Shifted first, so that large logits lose no digits where the normaliser and the label's logit nearly cancel
    z = prediction - lax.stop_gradient(prediction.max(-1, keepdims=True))
    normaliser = jnp.log(jnp.exp(z).sum(-1))
    if jnp.issubdtype(target.dtype, jnp.integer):
        loss = normaliser - label_logits(z, target)
    else:
        probabilities = _like(target, z)
        # Where a class is masked by a logit of -inf, 0 · -inf would be NaN
        products = jnp.where(probabilities == 0, jnp.zeros_like(z), z * probabilities)
        loss = normaliser * probabilities.sum(-1) - products.sum(-1)
    if not (isinstance(label_smoothing, (int, float)) and label_smoothing == 0):
        loss = (1 - smoothing) * loss + smoothing * (normaliser - z.mean(-1))
    return _per_example(loss).mean(-1)


def binary_cross_entropy(prediction: Array, target: Array) -> Float[Array, " batch"]:
    """The cross-entropy of yes-or-no questions, summed over outputs.

        loss = -Σ_k  t_k log σ(z_k) + (1 - t_k) log(1 - σ(z_k)),   z = prediction

    Args:
      prediction: logits (batch, ...), before any sigmoid.
      target: the same shape: 0 and 1 (integers, booleans or floats), or probabilities.

    Raises:
      ValueError: where the shapes differ.

    >>> losses.binary_cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([[1, 0]]))
    Array([1.3862944], dtype=float32)
    """
    _same_shape("binary_cross_entropy", prediction, target)
    t = target.astype(prediction.dtype)
    # log σ(z) = -softplus(-z), and 1 - σ(z) = σ(-z): no logarithm of zero at any z, and no digits lost at large ones
    return _per_example(t * jax.nn.softplus(-prediction) + (1 - t) * jax.nn.softplus(prediction)).sum(-1)


def check_labels(where: str, prediction: Array, target: Array) -> None:
    """`target` is one integer label per row of logits, or probabilities of the logits' shape."""
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
    """The logit of each label, (batch, ..., classes) -> (batch, ...); NaN for a label that is no class."""
    # A negative index would count from the end
    labels = jnp.where(target < 0, prediction.shape[-1], target)[..., None]
    return jnp.take_along_axis(prediction, labels, -1, mode="fill", fill_value=jnp.nan)[..., 0]


def _same_shape(where: str, prediction: Array, target: Array) -> None:
    if prediction.shape != target.shape:
        hint = ""
        if prediction.shape == (*target.shape, 1):
            hint = "; use y[:, None], or end the network in nn.reshape(())"
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
