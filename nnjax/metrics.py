"""Compute metrics, each of which summarises the predictions on a data set, usually as a single number.

Each metric takes `(prediction, target, weights=None)`. The weights, of shape (examples,), are the per-example loss
weights; None means equal weights. Classifiers predict logits (examples, classes); log-probabilities are valid logits.

**One output.** A prediction (examples,) or (examples, 1) is the logit of class 1, as in `losses.binary_cross_entropy`,
and class 0 has the logit 0. Its target, labels 0 and 1 or probabilities of class 1, has either of the two shapes.

All arrays may have any real dtype; a metric is computed in the floating dtype to which they are promoted, or in float32
if that is wider. Complex numbers raise TypeError. A metric is NaN if it is undefined: if there are no examples, if all
weights are 0 or any is negative, or if a label is outside 0 … classes - 1. Examples of weight 0 are ignored, even if
their predictions or labels are NaN.

**Sequences.** Like `losses.cross_entropy`, metrics of classifiers also accept logits (examples, ..., classes) with
labels (examples, ...), `ignore_index`, and pairs `(labels, per-position weights)` as target. The positions of an
example share its weight, so `nll` equals the validation loss. Examples whose positions are all ignored are left out.
To average over all positions, weight each example by its number of counted positions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import _targets, checks, losses
from nnjax._missing_name import missing_name

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = [
    "accuracy",
    "average_precision",
    "brier",
    "confusion_matrix",
    "expected_calibration_error",
    "f1",
    "mean_absolute_error",
    "nll",
    "precision",
    "r2",
    "recall",
    "reliability",
    "rmse",
    "roc_auc",
    "top_k_accuracy",
    "weighted_mean",
]


def accuracy(
    prediction: Array,
    target: losses.Target,
    weights: Array | None = None,
    *,
    ignore_index: int | None = None,
) -> Float[Array, ""]:
    """Return the fraction of examples whose label has the largest logit.

    Args:
      prediction: Logits of shape (examples, ..., classes); with one output, the logit of class 1.
      target: Integer labels (examples, ...), or probabilities with the shape of the logits, whose argmax is the label.
      weights: Per-example weights (examples,), or None.
      ignore_index: Label to ignore, or None.

    Raises:
      ValueError, TypeError: if the target or the weights do not match the logits.

    >>> metrics.accuracy(jnp.array([[2.0, 1.0], [0.0, 3.0]]), jnp.array([0, 0]))
    Array(0.5, dtype=float32)
    >>> metrics.accuracy(jnp.array([[-1.0], [3.0]]), jnp.array([[0], [1]]))  # one output: class 1 if the logit is > 0
    Array(1., dtype=float32)
    """
    logits, labels, weights = _rows("accuracy", prediction, target, weights, ignore_index)
    hits = (_most_likely(logits) == labels) & ~jnp.isnan(logits).any(-1)  # NaN logits count as wrong
    return _mean("accuracy", _nan_outside(hits.astype(logits.dtype), labels, logits), weights)


def nll(
    prediction: Array,
    target: losses.Target,
    weights: Array | None = None,
    *,
    ignore_index: int | None = None,
) -> Float[Array, ""]:
    """Return the negative log-likelihood, which is the mean cross-entropy, in nats.

        NLL = mean of -log softmax(prediction)[label]

    Args:
      prediction: Logits of shape (examples, ..., classes).
      target: Integer labels (examples, ...), or probabilities with the shape of the logits.
      weights: Per-example weights (examples,), or None.
      ignore_index: Label to ignore, or None.

    Raises:
      ValueError, TypeError: if the target or the weights do not match the logits.

    >>> metrics.nll(jnp.array([[0.0, 0.0]]), jnp.array([1]))
    Array(0.6931472, dtype=float32)
    """
    logits, target, weights = _rows_and_target("nll", prediction, target, weights, ignore_index)
    return _mean("nll", losses.cross_entropy(logits, target), weights)


def brier(
    prediction: Array,
    target: losses.Target,
    weights: Array | None = None,
    *,
    ignore_index: int | None = None,
) -> Float[Array, ""]:
    """Return the Brier score: the mean squared distance between predicted and true probabilities, in [0, 2].

        Brier = mean of Σ_k (softmax(prediction)_k - [k is the label])²

    Args:
      prediction: Logits of shape (examples, ..., classes).
      target: Integer labels (examples, ...), or probabilities with the shape of the logits.
      weights: Per-example weights (examples,), or None.
      ignore_index: Label to ignore, or None.

    Raises:
      ValueError, TypeError: if the target or the weights do not match the logits.

    >>> metrics.brier(jnp.array([[0.0, 0.0]]), jnp.array([1]))
    Array(0.5, dtype=float32)

    Source: Brier 1950.
    """
    logits, target, weights = _rows_and_target("brier", prediction, target, weights, ignore_index)
    probabilities, labels = jax.nn.softmax(logits), None
    if jnp.issubdtype(target.dtype, jnp.integer):
        labels = _targets.class_indices(target, logits.shape[-1])
        target = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    distance = jnp.square(probabilities - target.astype(logits.dtype)).sum(-1)
    return _mean("brier", distance if labels is None else _nan_outside(distance, labels, logits), weights)


def expected_calibration_error(
    prediction: Array,
    target: losses.Target,
    weights: Array | None = None,
    *,
    bins: int = 15,
    ignore_index: int | None = None,
) -> Float[Array, ""]:
    """Return the expected calibration error: the mean gap between accuracy and confidence over bins of equal width.

        ECE = Σ_bins share of examples · |accuracy - mean confidence|,   confidence = max softmax(prediction)

    Args:
      prediction: Logits of shape (examples, ..., classes).
      target: Integer labels (examples, ...), or probabilities with the shape of the logits, whose argmax is the label.
      weights: Per-example weights (examples,), or None.
      bins: Number of confidence bins in (0, 1].
      ignore_index: Label to ignore, or None.

    Raises:
      ValueError, TypeError: if bins < 1, or if the target or the weights do not match the logits.

    >>> metrics.expected_calibration_error(jnp.array([[0.0, 0.0], [0.0, 0.0]]), jnp.array([0, 0]))
    Array(0.5, dtype=float32)

    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    share, confidence, correct = _reliability(
        "expected_calibration_error", prediction, target, weights, bins=bins, ignore_index=ignore_index
    )
    return (share * jnp.abs(correct - confidence)).sum()


def reliability(
    prediction: Array,
    target: losses.Target,
    weights: Array | None = None,
    *,
    bins: int = 15,
    ignore_index: int | None = None,
) -> tuple[Float[Array, " bins"], Float[Array, " bins"], Float[Array, " bins"]]:
    """Return the data of a reliability diagram: share of examples, mean confidence and accuracy in each confidence bin.

    Args:
      prediction: Logits of shape (examples, ..., classes).
      target: Integer labels (examples, ...), or probabilities with the shape of the logits, whose argmax is the label.
      weights: Per-example weights (examples,), or None.
      bins: Number of confidence bins in (0, 1].
      ignore_index: Label to ignore, or None.

    Returns:
      Share, confidence and accuracy, arrays of shape (bins,). They are 0 for empty bins.

    Raises:
      ValueError, TypeError: if bins < 1, or if the target or the weights do not match the logits.

    >>> share, confidence, correct = metrics.reliability(jnp.array([[0.0, 0.0]]), jnp.array([0]), bins=4)
    >>> share
    Array([0., 1., 0., 0.], dtype=float32)
    """
    return _reliability("reliability", prediction, target, weights, bins=bins, ignore_index=ignore_index)


def r2(prediction: Array, target: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Return R², the share of the target's variance that the prediction explains, averaged over outputs.

        R² = 1 - Σ (target - prediction)² / Σ (target - mean target)²

    Args:
      prediction: Real numbers of shape (examples,) or (examples, outputs).
      target: Real numbers of the same shape.
      weights: Per-example weights (examples,), or None.

    An output with a constant target has no variance to explain. As in scikit-learn, it counts as 1 if it is predicted
    exactly, and as 0 otherwise.

    Raises:
      ValueError: if the shapes differ or have no first axis, or if the weights are not (examples,).
      TypeError: if an argument is not an array of real numbers.

    >>> metrics.r2(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 2.0, 3.0]))
    Array(1., dtype=float32)
    """
    prediction, target = _targets.real_pair("r2", prediction, target)
    n, *outputs = target.shape
    prediction, target, w = _with_weights("r2", {"prediction": prediction, "target": target}, weights, (n,))
    prediction, target, w = *(a.reshape(n, math.prod(outputs)) for a in (prediction, target)), w[:, None]
    w = w / w.sum()
    mean = _sum(w, target, keepdims=True)
    unexplained = _sum(w, jnp.square(target - prediction))
    # The computed variance of a constant target may differ from 0 by rounding
    low, high = jnp.min(target, 0, where=w != 0, initial=jnp.inf), jnp.max(target, 0, where=w != 0, initial=-jnp.inf)
    constant = low == high
    variance = _sum(w, jnp.square(target - mean))
    explained = 1 - unexplained / jnp.where(constant, jnp.ones_like(variance), variance)
    return jnp.where(constant, jnp.where(unexplained > 0, jnp.zeros_like(explained), explained), explained).mean()


def rmse(prediction: Array, target: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Return the root mean squared error, in the units of the target.

        RMSE = √(mean of (prediction - target)²)

    Args:
      prediction: Real numbers of shape (examples,) or (examples, outputs).
      target: Real numbers of the same shape.
      weights: Per-example weights (examples,), or None.

    Raises:
      ValueError: if the shapes differ or have no first axis, or if the weights are not (examples,).
      TypeError: if an argument is not an array of real numbers.

    >>> metrics.rmse(jnp.array([1.0, 5.0]), jnp.array([0.0, 0.0]))
    Array(3.6055512, dtype=float32)
    """
    prediction, target = _targets.real_pair("rmse", prediction, target)
    pair = checks.real_arrays("rmse", {"prediction": prediction, "target": target}, wide=True)
    return jnp.sqrt(_mean("rmse", losses.mean_squared_error(*pair), weights))


def top_k_accuracy(
    prediction: Array,
    target: losses.Target,
    weights: Array | None = None,
    *,
    k: int = 5,
    ignore_index: int | None = None,
) -> Float[Array, ""]:
    """Return the fraction of examples whose label is among the k largest logits.

    Args:
      prediction: Logits of shape (examples, ..., classes).
      target: Integer labels (examples, ...), or probabilities with the shape of the logits, whose argmax is the label.
      weights: Per-example weights (examples,), or None.
      k: Number of guesses. Among equal logits, the smaller class index comes first.
      ignore_index: Label to ignore, or None.

    Raises:
      ValueError, TypeError: if k < 1 or exceeds the number of classes, or if the target or the weights do not match
        the logits.

    >>> metrics.top_k_accuracy(jnp.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), jnp.array([1, 2]), k=2)
    Array(0.5, dtype=float32)
    """
    k = checks.positive_int("top_k_accuracy", "k", k)
    logits, labels, weights = _rows("top_k_accuracy", prediction, target, weights, ignore_index)
    if k > logits.shape[-1]:
        raise ValueError(f"top_k_accuracy: k must be at most the {logits.shape[-1]} classes, got {k}")
    hits = (jax.lax.top_k(logits, k)[1] == labels[..., None]).any(-1) & ~jnp.isnan(logits).any(-1)
    return _mean("top_k_accuracy", _nan_outside(hits.astype(logits.dtype), labels, logits), weights)


def confusion_matrix(
    prediction: Array,
    target: losses.Target,
    weights: Array | None = None,
    *,
    ignore_index: int | None = None,
) -> Float[Array, "classes classes"]:
    """Return the confusion matrix: entry [i, j] is the total weight of the examples of class i predicted as class j.

    The matrix of no examples is zero. A label that is not a class, a NaN logit and a negative weight make an entry NaN.

    Args:
      prediction: Logits of shape (examples, ..., classes).
      target: Integer labels (examples, ...), or probabilities with the shape of the logits, whose argmax is the label.
      weights: Per-example weights (examples,), or None for counts.
      ignore_index: Label to ignore, or None.

    Raises:
      ValueError, TypeError: if the target or the weights do not match the logits.

    >>> metrics.confusion_matrix(jnp.array([[2.0, 1.0], [0.0, 3.0]]), jnp.array([0, 0]))
    Array([[1., 1.],
           [0., 0.]], dtype=float32)
    """
    return _confusion("confusion_matrix", prediction, target, weights, ignore_index)


def precision(
    prediction: Array,
    target: losses.Target,
    weights: Array | None = None,
    *,
    ignore_index: int | None = None,
) -> Float[Array, ""]:
    """Return the precision (the share of correct predictions among all predictions of a class), averaged over classes.

        precision_c = examples of c predicted as c / examples predicted as c

    Args:
      prediction: Logits of shape (examples, ..., classes).
      target: Integer labels (examples, ...), or probabilities with the shape of the logits, whose argmax is the label.
      weights: Per-example weights (examples,), or None.
      ignore_index: Label to ignore, or None.

    A class that occurs but is never predicted counts as 0, as in scikit-learn with average="macro". A class that
    neither occurs nor is predicted is left out.

    Raises:
      ValueError, TypeError: if the target or the weights do not match the logits.

    >>> metrics.precision(jnp.array([[2.0, 1.0], [0.0, 3.0], [0.0, 3.0]]), jnp.array([0, 0, 1]))
    Array(0.75, dtype=float32)
    """
    matrix = _confusion("precision", prediction, target, weights, ignore_index)
    return _class_mean(jnp.diagonal(matrix), matrix.sum(0), matrix)


def recall(
    prediction: Array,
    target: losses.Target,
    weights: Array | None = None,
    *,
    ignore_index: int | None = None,
) -> Float[Array, ""]:
    """Return the recall (the share of a class that is predicted correctly), averaged over classes (balanced accuracy).

        recall_c = examples of c predicted as c / examples of c

    Args:
      prediction: Logits of shape (examples, ..., classes).
      target: Integer labels (examples, ...), or probabilities with the shape of the logits, whose argmax is the label.
      weights: Per-example weights (examples,), or None.
      ignore_index: Label to ignore, or None.

    A class that is predicted but does not occur counts as 0, as in scikit-learn with average="macro". A class that
    neither occurs nor is predicted is left out.

    Raises:
      ValueError, TypeError: if the target or the weights do not match the logits.

    >>> metrics.recall(jnp.array([[2.0, 1.0], [0.0, 3.0], [0.0, 3.0]]), jnp.array([0, 0, 1]))
    Array(0.75, dtype=float32)
    """
    matrix = _confusion("recall", prediction, target, weights, ignore_index)
    return _class_mean(jnp.diagonal(matrix), matrix.sum(1), matrix)


def f1(
    prediction: Array,
    target: losses.Target,
    weights: Array | None = None,
    *,
    ignore_index: int | None = None,
) -> Float[Array, ""]:
    """Return the F1 score (the harmonic mean of precision and recall), averaged over classes.

        F1_c = 2 · examples of c predicted as c / (examples predicted as c + examples of c)

    Args:
      prediction: Logits of shape (examples, ..., classes).
      target: Integer labels (examples, ...), or probabilities with the shape of the logits, whose argmax is the label.
      weights: Per-example weights (examples,), or None.
      ignore_index: Label to ignore, or None.

    A class that neither occurs nor is predicted is left out, as in scikit-learn with average="macro".

    Raises:
      ValueError, TypeError: if the target or the weights do not match the logits.

    >>> metrics.f1(jnp.array([[2.0, 1.0], [0.0, 3.0], [0.0, 3.0]]), jnp.array([0, 0, 1]))
    Array(0.6666667, dtype=float32)
    """
    matrix = _confusion("f1", prediction, target, weights, ignore_index)
    return _class_mean(2 * jnp.diagonal(matrix), matrix.sum(0) + matrix.sum(1), matrix)


def roc_auc(prediction: Array, target: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Return the area under the ROC curve: the probability that class 1 scores higher than class 0.

        AUC = P(score of class 1 > score of class 0) + ½ P(the scores are equal)

    Args:
      prediction: Logits of two classes (examples, 2), whose difference is the score, or scores (examples,) or
        (examples, 1).
      target: Labels 0 and 1, integers or booleans, of shape (examples,), or of the shape of the scores.
      weights: Per-example weights (examples,), or None.

    The result is NaN if a class does not occur, if a label is neither 0 nor 1, or if a score is NaN.

    Raises:
      ValueError, TypeError: if the shapes do not match, or if the labels are not integers or booleans.

    >>> metrics.roc_auc(jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1]))
    Array(0.75, dtype=float32)
    """
    scores, positive, negative = _scores("roc_auc", prediction, target, weights)
    below, until = _weight_up_to(scores, negative)
    wins = (positive * (below + until) / 2).sum()
    return wins / (positive.sum() * negative.sum())


def average_precision(prediction: Array, target: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Return the average precision: the mean precision at the scores of the class-1 examples.

        AP = mean over examples i of class 1 of  P(class 1 | score ≥ score_i)

    Args:
      prediction: Logits of two classes (examples, 2), whose difference is the score, or scores (examples,) or
        (examples, 1).
      target: Labels 0 and 1, integers or booleans, of shape (examples,), or of the shape of the scores.
      weights: Per-example weights (examples,), or None.

    The result is NaN if class 1 does not occur, if a label is neither 0 nor 1, or if a score is NaN.

    Raises:
      ValueError, TypeError: if the shapes do not match, or if the labels are not integers or booleans.

    >>> f"{metrics.average_precision(jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1])):.4f}"
    '0.8333'
    """
    scores, positive, negative = _scores("average_precision", prediction, target, weights)
    above = [total.sum() - _weight_up_to(scores, total)[0] for total in (positive, positive + negative)]
    at_least, all_of_them = above
    terms = positive * at_least / jnp.where(positive > 0, all_of_them, jnp.ones_like(all_of_them))
    return terms.sum() / positive.sum()


def mean_absolute_error(prediction: Array, target: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Return the mean absolute error, in the units of the target.

        MAE = mean of |prediction - target|

    Args:
      prediction: Real numbers of shape (examples,) or (examples, outputs).
      target: Real numbers of the same shape.
      weights: Per-example weights (examples,), or None.

    Raises:
      ValueError: if the shapes differ or have no first axis, or if the weights are not (examples,).
      TypeError: if an argument is not an array of real numbers.

    >>> metrics.mean_absolute_error(jnp.array([1.0, 5.0]), jnp.array([0.0, 0.0]))
    Array(3., dtype=float32)
    """
    prediction, target = _targets.real_pair("mean_absolute_error", prediction, target)
    pair = checks.real_arrays("mean_absolute_error", {"prediction": prediction, "target": target}, wide=True)
    return _mean("mean_absolute_error", losses.mean_absolute_error(*pair), weights)


def weighted_mean(values: Array, weights: Array | None = None) -> Float[Array, ""]:
    """Return the weighted mean of one number per example.

        mean = Σ w·v / Σ w

    Args:
      values: Numbers or booleans of shape (examples,), such as whether each prediction is correct. Values of weight 0
        are ignored, even if they are NaN.
      weights: Per-example weights (examples,), or None. The mean is NaN if all weights are 0 or any is negative.

    Raises:
      ValueError: if the shapes differ or are not (examples,).
      TypeError: if an argument is not an array of real numbers.

    >>> metrics.weighted_mean(jnp.array([1.0, 5.0]), jnp.array([3.0, 1.0]))
    Array(2., dtype=float32)
    """
    values = checks.array("weighted_mean", "values", values)
    if values.ndim != 1:
        raise ValueError(f"weighted_mean: values must be one number per example, (examples,), got {values.shape}")
    return _mean("weighted_mean", values, weights)


def _mean(where: str, values: Array, weights: Array | None) -> Array:
    """Return the weighted mean of one number per example; without weights, the values may have any shape."""
    (values,) = checks.real_arrays(where, {"values": values}, wide=True)
    if weights is None:
        return values.mean()
    values, weights = _with_weights(where, {"values": values}, weights, values.shape)
    return _sum(weights, values, axis=None) / weights.sum()


def _with_weights(where: str, arrays: dict[str, Array], weights: Array | None, shape: tuple[int, ...]) -> list[Array]:
    """Return arrays and weights in a common floating dtype. None becomes weights of 1; negative weights become NaN."""
    weights = jnp.ones(shape, bool) if weights is None else weights
    *checked, weights = checks.real_arrays(where, {**arrays, "weights": weights}, wide=True)
    if weights.shape != shape:
        raise ValueError(f"{where}: weights must be one per example, {shape}, got {tuple(weights.shape)}")
    return [*checked, jnp.where(weights < 0, jnp.nan, weights)]


def _sum(weights: Array, values: Array, axis: int | None = 0, *, keepdims: bool = False) -> Array:
    """Return Σ w·v, where a weight of 0 excludes a value even if it is NaN."""
    return jnp.where(weights == 0, jnp.zeros_like(values), weights * values).sum(axis, keepdims=keepdims)


def _confusion(
    where: str, prediction: Array, target: losses.Target, weights: Array | None, ignore_index: int | None
) -> Array:
    """Return the confusion matrix; an invalid label or NaN logit whose weight is not 0 makes its entry NaN."""
    logits, labels, weights = _rows(where, prediction, target, weights, ignore_index)
    classes = logits.shape[-1]
    _, weights = _with_weights(where, {"prediction": logits[:, 0]}, weights, labels.shape)
    known = (labels < classes) & ~jnp.isnan(logits).any(-1)
    counted = jnp.where(known | (weights == 0), weights, jnp.nan)
    matrix = jnp.zeros((classes, classes), counted.dtype)
    return matrix.at[jnp.minimum(labels, classes - 1), _most_likely(logits)].add(counted)


def _class_mean(numerators: Array, denominators: Array, matrix: Array) -> Array:
    """Return the mean of numerator / denominator over the classes that occur or are predicted; 0 / 0 counts as 0."""
    occurs = (matrix.sum(0) + matrix.sum(1)) != 0
    ratios = numerators / jnp.where(denominators == 0, jnp.ones_like(denominators), denominators)
    return jnp.where(occurs, ratios, jnp.zeros_like(ratios)).sum() / occurs.sum().astype(ratios.dtype)


def _scores(where: str, prediction: Array, target: Array, weights: Array | None) -> list[Array]:
    """Return the scores, the weights of class 1 (zero elsewhere) and the weights of class 0 (zero elsewhere)."""
    (scores,) = checks.real_arrays(where, {"prediction": prediction}, wide=True)
    labels = checks.array(where, "target", target)
    if scores.ndim == 2 and scores.shape[-1] == 2:
        scores = scores[:, 1] - scores[:, 0]
    if scores.ndim == 2 and scores.shape[-1] == 1:
        scores, labels = scores[:, 0], labels[:, 0] if labels.shape == scores.shape else labels
    if scores.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(
            f"{where}: prediction must be scores (examples,) or logits (examples, 2), and target labels (examples,); "
            f"got {tuple(checks.array(where, 'prediction', prediction).shape)} and {tuple(labels.shape)}"
        )
    if not (jnp.issubdtype(labels.dtype, jnp.integer) or labels.dtype == bool):
        raise TypeError(f"{where}: labels must be integers 0 and 1, got {labels.dtype}; cast them, as in y.astype(int)")
    labels = labels.astype(jnp.int32)
    scores, weights = _with_weights(where, {"prediction": scores}, weights, scores.shape)
    wrong = (labels < 0) | (labels > 1) | jnp.isnan(scores)
    weights = jnp.where(wrong & (weights != 0), jnp.nan, weights)
    zero = jnp.zeros_like(weights)
    return [scores, jnp.where(labels == 0, zero, weights), jnp.where(labels == 1, zero, weights)]


def _weight_up_to(scores: Array, weights: Array) -> tuple[Array, Array]:
    """Return, for each example, the total weight of examples with lower scores, and with lower or equal scores."""
    order = jnp.argsort(scores)
    ranked = scores[order]
    totals = jnp.concatenate([jnp.zeros(1, weights.dtype), jnp.cumsum(weights[order])])
    return totals[jnp.searchsorted(ranked, scores, side="left")], totals[jnp.searchsorted(ranked, scores, side="right")]


def _reliability(
    where: str,
    prediction: Array,
    target: losses.Target,
    weights: Array | None,
    *,
    bins: int,
    ignore_index: int | None,
) -> tuple[Array, Array, Array]:
    bins = checks.positive_int(where, "bins", bins)
    logits, labels, weights = _rows(where, prediction, target, weights, ignore_index)
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
    share = jnp.where(weights.sum() == 0, jnp.nan, share)  # shares of no examples are undefined
    return share, *(total(values) / filled for values in counted)  # type: ignore[return-value]


def _rows(
    where: str,
    prediction: Array,
    target: losses.Target,
    weights: Array | None,
    ignore_index: int | None,
) -> tuple[Array, Array, Array | None]:
    """Return logits (rows, classes), labels and weights, with one row for each position of each example.

    The logits are float32 or wider. The labels are int32, with `classes` for invalid labels. The positions of an
    example share its weight. The weights are None if all rows have equal weight.
    """
    logits, target, weights = _rows_and_target(where, prediction, target, weights, ignore_index)
    classes = logits.shape[-1]
    if jnp.issubdtype(target.dtype, jnp.integer):
        return logits, _targets.class_indices(target, classes), weights
    return logits, jnp.where(jnp.isnan(target).any(-1), classes, _most_likely(target)), weights


def _rows_and_target(
    where: str,
    prediction: Array,
    target: losses.Target,
    weights: Array | None,
    ignore_index: int | None,
) -> tuple[Array, Array, Array | None]:
    """Return the same rows as `_rows`, but with the target (labels or probabilities) unchanged."""
    prediction, target = _two_classes(where, prediction, target)
    logits, target, shares = _targets.logits_and_target(where, prediction, target, ignore_index)
    (logits,) = checks.real_arrays(where, {"prediction": logits}, wide=True)
    rows, flat = logits.shape[:-1], (math.prod(logits.shape[:-1]),)
    if shares is not None or (weights is not None and len(rows) > 1):
        shares = jnp.ones(rows, bool) if shares is None else shares
        shares, weights = _with_weights(where, {"per-position weights": shares}, weights, rows[:1])
        shares = shares.reshape(rows[0], math.prod(rows[1:]))
        total = shares.sum(-1, keepdims=True)
        share = shares / jnp.where(total == 0, jnp.ones_like(total), total)
        weights = weights[:, None]
        weights = jnp.where(weights == 0, jnp.zeros_like(share), weights * share).reshape(flat)
    return logits.reshape(*flat, logits.shape[-1]), target.reshape(*flat, *target.shape[len(rows) :]), weights


def _two_classes(where: str, prediction: Array, target: losses.Target) -> tuple[Array, losses.Target]:
    """Return logits and target of two classes if the prediction is one logit per row, and otherwise both unchanged."""
    prediction = checks.array(where, "prediction", prediction)
    if prediction.ndim == 0 or (prediction.ndim > 1 and prediction.shape[-1] != 1):
        return prediction, target
    if not jnp.issubdtype(prediction.dtype, jnp.floating):
        raise TypeError(f"{where}: prediction must be logits, got {prediction.dtype}; pass outputs instead of classes")
    if isinstance(target, tuple) and len(target) == 2:  # with weights of the positions
        prediction, labels = _two_classes(where, prediction, target[0])
        return prediction, (labels, target[1])  # type: ignore[return-value]
    logit = prediction[:, None] if prediction.ndim == 1 else prediction
    labels = checks.array(where, "target", target)
    if labels.shape == logit.shape:
        labels = labels[..., 0]
    if labels.shape == logit.shape[:-1] and jnp.issubdtype(labels.dtype, jnp.floating):
        labels = jnp.where((labels < 0) | (labels > 1), jnp.nan, labels)
        labels = jnp.stack([1 - labels, labels], -1)
    labels = labels.astype(jnp.int8) if labels.dtype == bool else labels
    return jnp.concatenate([jnp.zeros_like(logit), logit], -1), labels


def _nan_outside(values: Array, labels: Array, logits: Array) -> Array:
    """Replace the values at invalid labels with NaN."""
    return jnp.where(labels == logits.shape[-1], jnp.nan, values)


def _most_likely(prediction: Array) -> Array:
    return prediction.argmax(-1).astype(jnp.int32)


_ELSEWHERE = {  # names used by other libraries, in lower case without underscores
    "mse": "metrics.rmse",
    "acc": "metrics.accuracy",
    "ece": "metrics.expected_calibration_error",
    "crossentropy": "metrics.nll",
    "logloss": "metrics.nll",
    "rsquared": "metrics.r2",
}
# Assigned through globals(): if the module defined __getattr__ openly, type checkers would accept any name
globals()["__getattr__"] = missing_name("metrics", __all__, _ELSEWHERE)
