"""Metrics: one number for all predictions of a data set.

Each takes `(prediction, target, weights=None)`; weights (examples,) count examples more or less, as in the loss.
Classifiers predict logits (examples, classes); log-probabilities are logits too.
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
    """Share of examples whose largest logit is the label's.

    Args:
      prediction: logits (examples, classes).
      target: integer labels (examples,), or probabilities (examples, classes), whose largest counts.
      weights: (examples,) or None.

    Raises:
      ValueError, TypeError: where target does not fit the logits.

    >>> metrics.accuracy(jnp.array([[2.0, 1.0], [0.0, 3.0]]), jnp.array([0, 0]))
    Array(0.5, dtype=float32)
    """
    prediction = _wide(prediction)
    hits = _most_likely(prediction) == _labels("accuracy", prediction, target)
    hits = hits & ~jnp.isnan(prediction).any(-1)  # a network that has diverged is right about nothing
    return weighted_mean(hits.astype(prediction.dtype), weights)


def nll(prediction: Array, target: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Negative log-likelihood: the mean cross-entropy, in nats.

        NLL = mean of -log softmax(prediction)[label]

    Args:
      prediction: logits (examples, classes).
      target: integer labels (examples,), or probabilities (examples, classes).
      weights: (examples,) or None.

    Raises:
      ValueError, TypeError: where target does not fit the logits.

    >>> metrics.nll(jnp.array([[0.0, 0.0]]), jnp.array([1]))
    Array(0.6931472, dtype=float32)
    """
    prediction = _wide(prediction)
    return weighted_mean(losses.cross_entropy(prediction, target), weights)


def brier(prediction: Array, target: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Brier score: squared distance of the probabilities from the truth, in [0, 2].

        Brier = mean of Σ_k (softmax(prediction)_k - [k is the label])²

    Args:
      prediction: logits (examples, classes).
      target: integer labels (examples,), or probabilities (examples, classes).
      weights: (examples,) or None.

    Raises:
      ValueError, TypeError: where target does not fit the logits.

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
    """Expected calibration error: how far confidence is from accuracy, in bins of equal width.

        ECE = Σ_bins share of examples · |accuracy - mean confidence|,   confidence = max softmax(prediction)

    Args:
      prediction: logits (examples, classes).
      target: integer labels (examples,), or probabilities (examples, classes), whose largest counts.
      weights: (examples,) or None.
      bins: number of bins of confidence in (0, 1].

    Raises:
      ValueError, TypeError: for bins < 1, or where target does not fit the logits.

    >>> metrics.expected_calibration_error(jnp.array([[0.0, 0.0], [0.0, 0.0]]), jnp.array([0, 0]))
    Array(0.5, dtype=float32)

    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    share, confidence, correct = reliability(prediction, target, weights, bins=bins)
    return (share * jnp.abs(correct - confidence)).sum()


def reliability(
    prediction: Array, target: Array, weights: Array | None = None, *, bins: int = 15
) -> tuple[Float[Array, " bins"], Float[Array, " bins"], Float[Array, " bins"]]:
    """The reliability diagram: for each bin of confidence its share of examples, mean confidence and accuracy.

    Args:
      prediction: logits (examples, classes).
      target: integer labels (examples,), or probabilities (examples, classes), whose largest counts.
      weights: (examples,) or None.
      bins: number of bins of confidence in (0, 1].

    Returns:
      share, confidence, accuracy, (bins,) each; 0 in empty bins.

    Raises:
      ValueError, TypeError: for bins < 1, or where target does not fit the logits.

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
    bin_of = jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)
    weights = _weights(confidence, weights)
    share = jnp.zeros(bins, confidence.dtype).at[bin_of].add(weights / _nonzero(weights.sum()))
    total = _nonzero(jnp.zeros(bins, confidence.dtype).at[bin_of].add(weights))
    in_bin = [jnp.zeros(bins, confidence.dtype).at[bin_of].add(weights * v) / total for v in (confidence, correct)]
    return share, in_bin[0], in_bin[1]


def r2(prediction: Array, target: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Coefficient of determination: the share of the targets' variance that is explained, averaged over outputs.

        R² = 1 - Σ (target - prediction)² / Σ (target - mean target)²

    Args:
      prediction: (examples,) or (examples, outputs).
      target: the same shape.
      weights: (examples,) or None.

    Raises:
      ValueError: where the shapes differ.

    >>> metrics.r2(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 2.0, 3.0]))
    Array(1., dtype=float32)
    """
    prediction = _wide(prediction)
    losses.squared_error(prediction, target)  # its check of the shapes
    target = target.astype(prediction.dtype).reshape(target.shape[0], -1)
    w = _weights(prediction.reshape(target.shape)[:, 0], weights)[:, None]
    w = w / _nonzero(w.sum())
    mean = (w * target).sum(0, keepdims=True)
    unexplained = (w * jnp.square(target - prediction.reshape(target.shape))).sum(0)
    return (1 - unexplained / (w * jnp.square(target - mean)).sum(0)).mean()


def rmse(prediction: Array, target: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Root of the mean squared error, in the units of the target.

        RMSE = √(mean of (prediction - target)²)

    Args:
      prediction: (examples,) or (examples, outputs).
      target: the same shape.
      weights: (examples,) or None.

    Raises:
      ValueError: where the shapes differ.

    >>> metrics.rmse(jnp.array([1.0, 5.0]), jnp.array([0.0, 0.0]))
    Array(3.6055512, dtype=float32)
    """
    prediction = _wide(prediction)
    return jnp.sqrt(weighted_mean(losses.mean_squared_error(prediction, target), weights))


def weighted_mean(values: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Mean of one number per example.

        Σ w·v / Σ w,  and 0 where all weights are 0

    Args:
      values: (examples,).
      weights: (examples,) or None.

    Raises:
      ValueError: where the shapes differ.

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
        raise ValueError(f"weights must be one for each example, {values.shape}, got {tuple(weights.shape)}")
    return weights.astype(values.dtype)


def _nonzero(total: Array) -> Array:
    return jnp.where(total == 0, jnp.ones_like(total), total)


def _wide(prediction: Array) -> Array:
    """In float32 at least: a count of thousands has no room in 16 bits."""
    return prediction if prediction.dtype.itemsize >= 4 else prediction.astype(jnp.float32)


def _most_likely(prediction: Array) -> Array:
    return prediction.argmax(-1).astype(jnp.int32)


def _labels(where: str, prediction: Array, target: Array) -> Array:
    losses.check_labels(where, prediction, target)
    labels = target if jnp.issubdtype(target.dtype, jnp.integer) else target.argmax(-1)
    return labels.astype(jnp.int32)
