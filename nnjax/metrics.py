"""Metrics: one number for all predictions of a data set.

Each takes `(prediction, target, weights=None)`. The weights, of shape (examples,), are the per-example weights of the
loss; None means equal weights. Classifiers predict logits (examples, classes); log-probabilities are valid logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import checks, losses

if TYPE_CHECKING:
    from jaxtyping import Float


def accuracy(prediction: Array, target: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Return the share of examples whose largest logit is that of the label.

    Args:
      prediction: Logits of shape (examples, classes).
      target: Integer labels (examples,), or probabilities (examples, classes) whose argmax is the label.
      weights: Per-example weights (examples,), or None.

    Raises:
      ValueError, TypeError: if the target does not match the logits.

    >>> metrics.accuracy(jnp.array([[2.0, 1.0], [0.0, 3.0]]), jnp.array([0, 0]))
    Array(0.5, dtype=float32)
    """
    prediction = _wide(prediction)
    hits = _most_likely(prediction) == _labels("accuracy", prediction, target)
    hits = hits & ~jnp.isnan(prediction).any(-1)  # NaN is never a hit
    return weighted_mean(hits.astype(prediction.dtype), weights)


def nll(prediction: Array, target: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Return the negative log-likelihood: the mean cross-entropy, in nats.

        NLL = mean of -log softmax(prediction)[label]

    Args:
      prediction: Logits of shape (examples, classes).
      target: Integer labels (examples,), or probabilities (examples, classes).
      weights: Per-example weights (examples,), or None.

    Raises:
      ValueError, TypeError: if the target does not match the logits.

    >>> metrics.nll(jnp.array([[0.0, 0.0]]), jnp.array([1]))
    Array(0.6931472, dtype=float32)
    """
    prediction = _wide(prediction)
    return weighted_mean(losses.cross_entropy(prediction, target), weights)


def brier(prediction: Array, target: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Return the Brier score: the mean squared distance of the probabilities from the truth, in [0, 2].

        Brier = mean of Σ_k (softmax(prediction)_k - [k is the label])²

    Args:
      prediction: Logits of shape (examples, classes).
      target: Integer labels (examples,), or probabilities (examples, classes).
      weights: Per-example weights (examples,), or None.

    Raises:
      ValueError, TypeError: if the target does not match the logits.

    >>> metrics.brier(jnp.array([[0.0, 0.0]]), jnp.array([1]))
    Array(0.5, dtype=float32)

    Source: Brier 1950.
    """
    prediction = _wide(prediction)
    losses.check_labels("brier", prediction, target)
    if jnp.issubdtype(target.dtype, jnp.integer):
        target = jax.nn.one_hot(target, prediction.shape[-1], dtype=prediction.dtype)
    return weighted_mean(losses.squared_error(jax.nn.softmax(prediction), target), weights)


def expected_calibration_error(
    prediction: Array, target: Array, weights: Array | None = None, *, bins: int = 15
) -> Float[Array, ""]:
    """Return the expected calibration error: the mean gap between accuracy and confidence, in bins of equal width.

        ECE = Σ_bins share of examples · |accuracy - mean confidence|,   confidence = max softmax(prediction)

    Args:
      prediction: Logits of shape (examples, classes).
      target: Integer labels (examples,), or probabilities (examples, classes) whose argmax is the label.
      weights: Per-example weights (examples,), or None.
      bins: Number of confidence bins in (0, 1].

    Raises:
      ValueError, TypeError: if bins < 1, or if the target does not match the logits.

    >>> metrics.expected_calibration_error(jnp.array([[0.0, 0.0], [0.0, 0.0]]), jnp.array([0, 0]))
    Array(0.5, dtype=float32)

    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    share, confidence, correct = reliability(prediction, target, weights, bins=bins)
    return (share * jnp.abs(correct - confidence)).sum()


def reliability(
    prediction: Array, target: Array, weights: Array | None = None, *, bins: int = 15
) -> tuple[Float[Array, " bins"], Float[Array, " bins"], Float[Array, " bins"]]:
    """Return the reliability diagram: share of examples, mean confidence and accuracy of each confidence bin.

    Args:
      prediction: Logits of shape (examples, classes).
      target: Integer labels (examples,), or probabilities (examples, classes) whose argmax is the label.
      weights: Per-example weights (examples,), or None.
      bins: Number of confidence bins in (0, 1].

    Returns:
      The arrays share, confidence and accuracy of shape (bins,). Empty bins are 0.

    Raises:
      ValueError, TypeError: if bins < 1, or if the target does not match the logits.

    >>> share, confidence, correct = metrics.reliability(jnp.array([[0.0, 0.0]]), jnp.array([0]), bins=4)
    >>> share
    Array([0., 1., 0., 0.], dtype=float32)
    """
    prediction = _wide(prediction)
    bins = checks.positive_int("expected_calibration_error", "bins", bins)
    labels = _labels("expected_calibration_error", prediction, target)
    probabilities = jax.nn.softmax(prediction)
    confidence = probabilities.max(-1)
    correct = (_most_likely(probabilities) == labels).astype(prediction.dtype)
    bin_index = jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)
    weights = _weights(confidence, weights)
    share = jnp.zeros(bins, confidence.dtype).at[bin_index].add(weights / _nonzero(weights.sum()))
    total = _nonzero(jnp.zeros(bins, confidence.dtype).at[bin_index].add(weights))
    in_bin = [jnp.zeros(bins, confidence.dtype).at[bin_index].add(weights * v) / total for v in (confidence, correct)]
    return share, in_bin[0], in_bin[1]


def r2(prediction: Array, target: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Return the coefficient of determination, the explained share of the target's variance, averaged over outputs.

        R² = 1 - Σ (target - prediction)² / Σ (target - mean target)²

    Args:
      prediction: Real numbers of shape (examples,) or (examples, outputs).
      target: Real numbers of the same shape.
      weights: Per-example weights (examples,), or None.

    Raises:
      ValueError: if the shapes differ.

    >>> metrics.r2(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 2.0, 3.0]))
    Array(1., dtype=float32)
    """
    prediction = _wide(prediction)
    losses.squared_error(prediction, target)  # checks the shapes
    target = target.astype(prediction.dtype).reshape(target.shape[0], -1)
    w = _weights(prediction.reshape(target.shape)[:, 0], weights)[:, None]
    w = w / _nonzero(w.sum())
    mean = (w * target).sum(0, keepdims=True)
    unexplained = (w * jnp.square(target - prediction.reshape(target.shape))).sum(0)
    return (1 - unexplained / (w * jnp.square(target - mean)).sum(0)).mean()


def rmse(prediction: Array, target: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Return the root mean squared error, in units of the target.

        RMSE = √(mean of (prediction - target)²)

    Args:
      prediction: Real numbers of shape (examples,) or (examples, outputs).
      target: Real numbers of the same shape.
      weights: Per-example weights (examples,), or None.

    Raises:
      ValueError: if the shapes differ.

    >>> metrics.rmse(jnp.array([1.0, 5.0]), jnp.array([0.0, 0.0]))
    Array(3.6055512, dtype=float32)
    """
    prediction = _wide(prediction)
    return jnp.sqrt(weighted_mean(losses.mean_squared_error(prediction, target), weights))


def weighted_mean(values: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Return the weighted mean of one number per example.

        mean = Σ w·v / Σ w,  and 0 if all weights are 0

    Args:
      values: Numbers of shape (examples,).
      weights: Per-example weights (examples,), or None.

    Raises:
      ValueError: if the shapes differ.

    >>> metrics.weighted_mean(jnp.array([1.0, 5.0]), jnp.array([3.0, 1.0]))
    Array(2., dtype=float32)
    """
    if weights is None:
        return values.mean()
    weights = _weights(values, weights)
    return (weights * values).sum() / _nonzero(weights.sum())


def _weights(values: Array, weights: Array | None) -> Array:
    if weights is None:
        return jnp.ones_like(values)
    if weights.shape != values.shape:
        raise ValueError(f"weights must be one per example, {values.shape}, got {tuple(weights.shape)}")
    return weights.astype(values.dtype)


def _nonzero(total: Array) -> Array:
    return jnp.where(total == 0, jnp.ones_like(total), total)


def _wide(prediction: Array) -> Array:
    """Cast to float32 at least, because 16 bits cannot count thousands of examples."""
    return prediction if prediction.dtype.itemsize >= 4 else prediction.astype(jnp.float32)


def _most_likely(prediction: Array) -> Array:
    return prediction.argmax(-1).astype(jnp.int32)


def _labels(where: str, prediction: Array, target: Array) -> Array:
    losses.check_labels(where, prediction, target)
    labels = target if jnp.issubdtype(target.dtype, jnp.integer) else target.argmax(-1)
    return labels.astype(jnp.int32)
