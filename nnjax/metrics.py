"""Metrics: one number for all predictions of a data set.

Each takes `(prediction, target, weights=None)`. The weights, of shape (examples,), are the per-example weights of the
loss; None means equal weights. Classifiers predict logits (examples, classes); log-probabilities are valid logits.

All arrays may have any real dtype; a metric is computed in the floating dtype to which they are promoted, in float32 at
least. Complex numbers raise TypeError. A metric that is undefined is NaN: without examples, if the weights are all 0 or
one is negative, and if a label is outside 0 … classes - 1. An example of weight 0 does not count, even if its
prediction or its label is NaN.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import checks, losses

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = [
    "accuracy",
    "brier",
    "expected_calibration_error",
    "nll",
    "r2",
    "reliability",
    "rmse",
    "weighted_mean",
]


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
    logits, labels = _logits_and_labels("accuracy", prediction, target)
    hits = (_most_likely(logits) == labels) & ~jnp.isnan(logits).any(-1)  # NaN is never a hit
    return _mean("accuracy", _nan_outside(hits.astype(logits.dtype), labels, logits), weights)


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
    logits, target = losses.logits_and_target("nll", prediction, target)
    (logits,) = checks.real_arrays("nll", {"prediction": logits}, wide=True)
    return _mean("nll", losses.cross_entropy(logits, target), weights)


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
    logits, target = losses.logits_and_target("brier", prediction, target)
    (logits,) = checks.real_arrays("brier", {"prediction": logits}, wide=True)
    probabilities, labels = jax.nn.softmax(logits), None
    if jnp.issubdtype(target.dtype, jnp.integer):
        labels = losses.class_indices(target, logits.shape[-1])
        target = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    distance = jnp.square(probabilities - target.astype(logits.dtype)).sum(-1)
    return _mean("brier", distance if labels is None else _nan_outside(distance, labels, logits), weights)


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
    share, confidence, correct = _reliability("expected_calibration_error", prediction, target, weights, bins)
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
    return _reliability("reliability", prediction, target, weights, bins)


def r2(prediction: Array, target: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Return the coefficient of determination, the explained share of the target's variance, averaged over outputs.

        R² = 1 - Σ (target - prediction)² / Σ (target - mean target)²

    Args:
      prediction: Real numbers of shape (examples,) or (examples, outputs).
      target: Real numbers of the same shape.
      weights: Per-example weights (examples,), or None.

    An output whose target is constant has no variance to explain. As in scikit-learn, it counts as 1 if it is predicted
    exactly, and as 0 otherwise.

    Raises:
      ValueError: if the shapes differ.

    >>> metrics.r2(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 2.0, 3.0]))
    Array(1., dtype=float32)
    """
    prediction, target = losses.real_pair("r2", prediction, target)
    n, *outputs = target.shape
    prediction, target, w = _with_weights("r2", {"prediction": prediction, "target": target}, weights, (n,))
    prediction, target, w = *(a.reshape(n, math.prod(outputs)) for a in (prediction, target)), w[:, None]
    w = w / w.sum()
    mean = _sum(w, target, keepdims=True)
    unexplained = _sum(w, jnp.square(target - prediction))
    # The variance of a constant target is 0 only up to rounding
    low, high = jnp.min(target, 0, where=w != 0, initial=jnp.inf), jnp.max(target, 0, where=w != 0, initial=-jnp.inf)
    constant = low == high
    variance = _sum(w, jnp.square(target - mean))
    explained = 1 - unexplained / jnp.where(constant, jnp.ones_like(variance), variance)
    return jnp.where(constant, jnp.where(unexplained > 0, jnp.zeros_like(explained), explained), explained).mean()


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
    prediction, target = losses.real_pair("rmse", prediction, target)
    pair = checks.real_arrays("rmse", {"prediction": prediction, "target": target}, wide=True)
    return jnp.sqrt(_mean("rmse", losses.mean_squared_error(*pair), weights))


def weighted_mean(values: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Return the weighted mean of one number per example.

        mean = Σ w·v / Σ w

    Args:
      values: Numbers or booleans of shape (examples,), such as whether each prediction is correct. A value of weight 0
        does not count, even if it is NaN.
      weights: Per-example weights (examples,), or None. The mean is NaN if they are all 0, or if one is negative.

    Raises:
      ValueError: if the shapes differ or are not (examples,).

    >>> metrics.weighted_mean(jnp.array([1.0, 5.0]), jnp.array([3.0, 1.0]))
    Array(2., dtype=float32)
    """
    values = checks.array("weighted_mean", "values", values)
    if values.ndim != 1:
        raise ValueError(f"weighted_mean: values must be one number per example, (examples,), got {values.shape}")
    return _mean("weighted_mean", values, weights)


def _mean(where: str, values: Array, weights: Array | None) -> Array:
    """Return the weighted mean of one number per example, or per position of an example if there are no weights."""
    (values,) = checks.real_arrays(where, {"values": values}, wide=True)
    if weights is None:
        return values.mean()
    values, weights = _with_weights(where, {"values": values}, weights, values.shape)
    return _sum(weights, values, axis=None) / weights.sum()


def _with_weights(where: str, arrays: dict[str, Array], weights: Array | None, shape: tuple[int, ...]) -> list[Array]:
    """Return the arrays and the weights, 1 if None, in one floating dtype; negative weights become NaN."""
    weights = jnp.ones(shape, bool) if weights is None else weights
    *checked, weights = checks.real_arrays(where, {**arrays, "weights": weights}, wide=True)
    if weights.shape != shape:
        raise ValueError(f"{where}: weights must be one per example, {shape}, got {tuple(weights.shape)}")
    return [*checked, jnp.where(weights < 0, jnp.nan, weights)]


def _sum(weights: Array, values: Array, axis: int | None = 0, *, keepdims: bool = False) -> Array:
    """Return Σ w·v, in which a weight of 0 removes the value, even if it is NaN."""
    return jnp.where(weights == 0, jnp.zeros_like(values), weights * values).sum(axis, keepdims=keepdims)


def _reliability(
    where: str, prediction: Array, target: Array, weights: Array | None, bins: int
) -> tuple[Array, Array, Array]:
    bins = checks.positive_int(where, "bins", bins)
    logits, labels = _logits_and_labels(where, prediction, target)
    probabilities = jax.nn.softmax(logits)
    confidence = probabilities.max(-1)
    correct = _nan_outside((_most_likely(probabilities) == labels).astype(logits.dtype), labels, logits)
    bin_index = jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)
    confidence, correct, weights = _with_weights(
        where, {"confidence": confidence, "correct": correct}, weights, confidence.shape
    )

    def total(values: Array) -> Array:
        return jnp.zeros(bins, values.dtype).at[bin_index].add(values)

    weight = total(weights)
    filled = jnp.where(weight == 0, jnp.ones_like(weight), weight)
    counted = (jnp.where(weights == 0, jnp.zeros_like(v), weights * v) for v in (confidence, correct))
    share = total(weights / weights.sum())
    share = jnp.where(weights.sum() == 0, jnp.nan, share)  # no examples
    return share, *(total(values) / filled for values in counted)  # type: ignore[return-value]


def _logits_and_labels(where: str, prediction: Array, target: Array) -> list[Array]:
    """Return logits, in float32 at least, and int32 labels, which are `classes` if they are not a class."""
    logits, target = losses.logits_and_target(where, prediction, target)
    classes = logits.shape[-1]
    (logits,) = checks.real_arrays(where, {"prediction": logits}, wide=True)
    if jnp.issubdtype(target.dtype, jnp.integer):
        return [logits, losses.class_indices(target, classes)]
    return [logits, jnp.where(jnp.isnan(target).any(-1), classes, _most_likely(target))]


def _nan_outside(values: Array, labels: Array, logits: Array) -> Array:
    """Set the values of labels that are not a class to NaN."""
    return jnp.where(labels == logits.shape[-1], jnp.nan, values)


def _most_likely(prediction: Array) -> Array:
    return prediction.argmax(-1).astype(jnp.int32)


_ELSEWHERE = {  # names of other libraries, in lower case without underscores
    "mse": "metrics.rmse",
    "acc": "metrics.accuracy",
    "ece": "metrics.expected_calibration_error",
    "crossentropy": "metrics.nll",
    "logloss": "metrics.nll",
    "rsquared": "metrics.r2",
}
# Assigned, because a type checker would assume that a module that defines this function has every name
globals()["__getattr__"] = checks.missing_name("metrics", __all__, _ELSEWHERE)
