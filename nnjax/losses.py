"""Compute losses, which are one number per example.

Each loss returns an array of shape (batch,); the caller takes the mean, so examples can be weighted. Prediction
and target must have equal shapes; they are not broadcast. They may have any real dtype, and the loss is computed in the
floating dtype to which both are promoted. This is JAX's default float dtype if neither is floating, and float32 if
16-bit floats are combined with integers of 16 bits or more. Complex numbers raise TypeError. Bind options with
`functools.partial`, as in `partial(losses.cross_entropy, label_smoothing=0.1)`.

**Sequences.** For logits (batch, ..., classes), `cross_entropy`, `focal` and `kl_divergence` average over the positions
(the axes between batch and classes). The first two ignore positions with the label `ignore_index`. To weight each
position, for example by a mask of zeros and ones, pass a pair such as `(labels, weights)` as target. The loss of an
example is then

    loss_i = Σ_t v_it loss_it / Σ_t v_it,   0 if all v_it are 0

In the loss of a run, all examples have equal weight, regardless of their length. To average over all positions of all
examples, as PyTorch does, weight each example by its number of positions, Σ_t v_it. With `ignore_index=-1`:
`Data(x, labels, weights=(labels != -1).sum(-1))`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from nnjax import _targets, checks
from nnjax._missing_name import missing_name

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = [
    "binary_cross_entropy",
    "cosine_distance",
    "cross_entropy",
    "ctc",
    "focal",
    "gaussian_nll",
    "hinge",
    "huber",
    "info_nce",
    "kl_divergence",
    "mean_absolute_error",
    "mean_squared_error",
    "poisson_nll",
    "quantile",
    "squared_error",
]

Target: TypeAlias = Array | tuple[Array, Array]  # class labels or probabilities, or a pair (these, position weights)


def squared_error(prediction: Array, target: Array) -> Float[Array, " batch"]:
    """Return the squared error, summed over outputs (unlike `optax.squared_error`, which does not sum).

        loss = Σ_k (prediction_k - target_k)²

    Args:
      prediction: Real numbers of shape (batch, ...).
      target: Real numbers of the same shape.

    Raises:
      ValueError: if the shapes differ or have no batch axis.
      TypeError: if an argument is not an array of real numbers.

    >>> losses.squared_error(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 0.0]]))
    Array([5.], dtype=float32)
    """
    prediction, target = _targets.real_pair("squared_error", prediction, target)
    return _per_example(jnp.square(prediction - target)).sum(-1)


def mean_squared_error(prediction: Array, target: Array) -> Float[Array, " batch"]:
    """Return the squared error, averaged over outputs.

        loss = 1/K Σ_k (prediction_k - target_k)²

    Args:
      prediction: Real numbers of shape (batch, ...).
      target: Real numbers of the same shape.

    Raises:
      ValueError: if the shapes differ or have no batch axis.
      TypeError: if an argument is not an array of real numbers.

    >>> losses.mean_squared_error(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 0.0]]))
    Array([2.5], dtype=float32)
    """
    prediction, target = _targets.real_pair("mean_squared_error", prediction, target)
    return _per_example(jnp.square(prediction - target)).mean(-1)


def huber(prediction: Array, target: Array, *, delta: float | Array = 1.0) -> Float[Array, " batch"]:
    """Return Huber's loss, summed over outputs: quadratic for small errors, linear for large ones.

        loss = Σ_k  ½ e²  if |e| ≤ δ  else  δ (|e| - ½ δ),   e = prediction_k - target_k

    Args:
      prediction: Real numbers of shape (batch, ...).
      target: Real numbers of the same shape.
      delta: Error at which the loss changes from quadratic to linear, > 0.

    Raises:
      ValueError: if the shapes differ or have no batch axis, or if delta is not one number > 0.
      TypeError: if an argument is not an array of real numbers.

    >>> losses.huber(jnp.array([[0.5, 3.0]]), jnp.array([[0.0, 0.0]]))
    Array([2.625], dtype=float32)

    Source: Huber 1964.
    """
    prediction, target = _targets.real_pair("huber", prediction, target)
    delta = jnp.asarray(checks.in_range("huber", "delta", delta, "(0, inf)"), prediction.dtype)
    error = jnp.abs(prediction - target)
    inner = jnp.minimum(error, delta)
    return _per_example(inner * (error - 0.5 * inner)).sum(-1)


def cross_entropy(
    prediction: Array,
    target: Target,
    *,
    label_smoothing: float | Array = 0.0,
    ignore_index: int | None = None,
) -> Float[Array, " batch"]:
    """Return the cross-entropy between the labels and the softmax of the prediction.

        loss = -Σ_k q_k log softmax(prediction)_k,   q = (1 - s) · target + s / classes

    Args:
      prediction: Logits of shape (batch, ..., classes), without softmax. The loss is averaged over the axes between
        batch and classes (the positions of a sequence).
      target: Integer labels of shape (batch, ...) in 0 … classes - 1, or probabilities of the same shape as the logits.
        A label outside this range gives NaN; `train.fit` raises an error for it. A pair `(target, weights)` weights the
        positions; the weights have the shape of the labels, and a negative weight gives NaN.
      label_smoothing: Fraction s of the probability that is spread evenly over the classes, in [0, 1].
      ignore_index: Label of the positions to ignore, such as -1, or None. The loss of an example with only this label
        is 0.

    Raises:
      ValueError: if the shapes do not match, or if label_smoothing is not one number in [0, 1].
      TypeError: if the labels are not integers, if the prediction is not real, or if ignore_index is not an integer or
        is combined with probabilities.

    >>> losses.cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1]))
    Array([0.6931472], dtype=float32)
    >>> losses.cross_entropy(jnp.zeros((1, 3, 2)), jnp.array([[0, 1, -1]]), ignore_index=-1)
    Array([0.6931472], dtype=float32)
    """
    smoothing = checks.in_range("cross_entropy", "label_smoothing", label_smoothing, "[0, 1]")
    prediction, target, weights = _targets.logits_and_target("cross_entropy", prediction, target, ignore_index)
    smoothing = jnp.asarray(smoothing, prediction.dtype)
    # Subtract the maximum first; otherwise, large logits would lose digits in the difference computed below
    z = prediction - lax.stop_gradient(prediction.max(-1, keepdims=True))
    normaliser = jnp.log(jnp.exp(z).sum(-1))
    if jnp.issubdtype(target.dtype, jnp.integer):
        loss = normaliser - _targets.label_logits(z, target)
    else:
        # For a class masked with the logit -inf, 0 · -inf would be NaN
        products = jnp.where(target == 0, jnp.zeros_like(z), z * target)
        loss = normaliser * target.sum(-1) - products.sum(-1)
    if not (isinstance(label_smoothing, (int, float)) and label_smoothing == 0):
        loss = (1 - smoothing) * loss + smoothing * (normaliser - z.mean(-1))
    return _mean_of_positions(loss, weights)


def binary_cross_entropy(prediction: Array, target: Array) -> Float[Array, " batch"]:
    """Return the binary cross-entropy, summed over outputs.

        loss = -Σ_k  t_k log σ(z_k) + (1 - t_k) log(1 - σ(z_k)),   z = prediction

    Args:
      prediction: Logits of shape (batch, ...), without sigmoid.
      target: Labels 0 and 1 (integers, booleans or floats), or probabilities, of the same shape. A number outside
        0 … 1, by more than rounding, gives NaN.

    Raises:
      ValueError: if the shapes differ or have no batch axis.
      TypeError: if an argument is not an array of real numbers.

    >>> losses.binary_cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([[1, 0]]))
    Array([1.3862944], dtype=float32)
    """
    target = checks.array("binary_cross_entropy", "target", target)
    if jnp.issubdtype(target.dtype, jnp.integer):
        target = _targets.class_indices(target, 2).astype(jnp.int8)  # int8 does not promote the prediction
    prediction, t = _targets.real_pair("binary_cross_entropy", prediction, target)
    t = jnp.where(jnp.abs(t - 0.5) > 0.51, jnp.nan, t)  # mixtures of labels in 16 bits may exceed 1 by rounding
    # log σ(z) = -softplus(-z) and 1 - σ(z) = σ(-z) avoid the logarithm of zero and stay accurate for large |z|
    return _per_example(t * jax.nn.softplus(-prediction) + (1 - t) * jax.nn.softplus(prediction)).sum(-1)


def mean_absolute_error(prediction: Array, target: Array) -> Float[Array, " batch"]:
    """Return the absolute error, averaged over outputs.

        loss = 1/K Σ_k |prediction_k - target_k|

    Args:
      prediction: Real numbers of shape (batch, ...).
      target: Real numbers of the same shape.

    Raises:
      ValueError: if the shapes differ or have no batch axis.
      TypeError: if an argument is not an array of real numbers.

    >>> losses.mean_absolute_error(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 0.0]]))
    Array([1.5], dtype=float32)
    """
    prediction, target = _targets.real_pair("mean_absolute_error", prediction, target)
    return _per_example(jnp.abs(prediction - target)).mean(-1)


def quantile(prediction: Array, target: Array, *, q: float | Array = 0.5) -> Float[Array, " batch"]:
    """Return the quantile loss (pinball loss), summed over outputs. It is minimised by the q-quantile of the target.

        loss = Σ_k max(q e, (q - 1) e),   e = target_k - prediction_k

    Args:
      prediction: Real numbers of shape (batch, ...).
      target: Real numbers of the same shape.
      q: The quantile level, in [0, 1]. With 0.5, the loss is half the absolute error.

    Raises:
      ValueError: if the shapes differ or have no batch axis, or if q is not one number in [0, 1].
      TypeError: if an argument is not an array of real numbers.

    >>> losses.quantile(jnp.array([[0.0, 0.0]]), jnp.array([[1.0, -1.0]]), q=0.75)
    Array([1.], dtype=float32)

    Source: Koenker and Bassett 1978.
    """
    prediction, target = _targets.real_pair("quantile", prediction, target)
    q = jnp.asarray(checks.in_range("quantile", "q", q, "[0, 1]"), prediction.dtype)
    error = target - prediction
    return _per_example(jnp.maximum(q * error, (q - 1) * error)).sum(-1)


def gaussian_nll(prediction: tuple[Array, Array], target: Array) -> Float[Array, " batch"]:
    """Return the negative log-likelihood (in nats) of the target under a predicted normal distribution.

        loss = Σ_k ½ (log v + (target_k - mean_k)² / v + log 2π),   v = exp(log_variance_k)

    Args:
      prediction: `(mean, log_variance)`, two real arrays of shape (batch, ...), for example from a network that ends
        with `lambda y: tuple(jnp.split(y, 2, -1))`. `uncertainty.variance_decomposition` takes variances instead.
      target: Real numbers of the same shape.

    Raises:
      ValueError: if the shapes differ or have no batch axis.
      TypeError: if the prediction is not a pair, or an array does not hold real numbers.

    >>> losses.gaussian_nll((jnp.zeros((1, 1)), jnp.zeros((1, 1))), jnp.zeros((1, 1)))
    Array([0.9189385], dtype=float32)

    Source: Nix and Weigend 1994.
    """
    mean, log_variance = _pair("gaussian_nll", "(mean, log_variance)", prediction)
    mean, target = _targets.real_pair("gaussian_nll", mean, target)
    log_variance, target = _targets.real_pair("gaussian_nll", log_variance, target)
    mean, log_variance, target = checks.real_arrays(
        "gaussian_nll", {"mean": mean, "log_variance": log_variance, "target": target}
    )
    terms = log_variance + jnp.square(target - mean) * jnp.exp(-log_variance) + math.log(2 * math.pi)
    return _per_example(terms).sum(-1) / 2


def poisson_nll(prediction: Array, target: Array) -> Float[Array, " batch"]:
    """Return the negative log-likelihood (in nats) of counts given predicted log-rates, summed over outputs.

        loss = Σ_k exp(z_k) - t_k z_k + log t_k!,   z = prediction, t = target

    Args:
      prediction: Logarithms of the rates, of shape (batch, ...).
      target: Counts ≥ 0 of the same shape. A negative count gives NaN. Torch omits log t!, which does not depend on the
        prediction.

    Raises:
      ValueError: if the shapes differ or have no batch axis.
      TypeError: if an argument is not an array of real numbers.

    >>> f"{losses.poisson_nll(jnp.array([[0.0]]), jnp.array([[2.0]]))[0]:.3f}"  # 1 + log 2
    '1.693'
    """
    z, t = _targets.real_pair("poisson_nll", prediction, target)
    t = jnp.where(t < 0, jnp.nan, t)
    return _per_example(jnp.exp(z) - t * z + jax.scipy.special.gammaln(t + 1)).sum(-1)


def kl_divergence(prediction: Array, target: Target) -> Float[Array, " batch"]:
    """Return the Kullback–Leibler divergence D(target ‖ softmax(prediction)), in nats.

        loss = Σ_k q_k (log q_k - log softmax(prediction)_k),   q = target

    It is the cross-entropy minus the target's entropy, so its minimum is 0. It is the usual loss for distillation.

    Args:
      prediction: Logits of shape (batch, ..., classes). The loss is averaged over the axes between batch and classes.
      target: Probabilities of the same shape, or a pair `(probabilities, weights)` with one weight per position.

    Raises:
      ValueError: if the shapes differ.
      TypeError: if an argument is not an array of real numbers, or if the target holds integers.

    >>> losses.kl_divergence(jnp.array([[0.0, 0.0]]), jnp.array([[1.0, 0.0]]))
    Array([0.6931472], dtype=float32)
    """
    prediction, target, weights = _targets.logits_and_target("kl_divergence", prediction, target)
    if jnp.issubdtype(target.dtype, jnp.integer):
        raise TypeError("kl_divergence: target must be probabilities, got integers; use cross_entropy for labels")
    entropy = _mean_of_positions(-jax.scipy.special.xlogy(target, target).sum(-1), weights)
    return cross_entropy(prediction, target if weights is None else (target, weights)) - entropy


def focal(
    prediction: Array,
    target: Target,
    *,
    gamma: float | Array = 2.0,
    ignore_index: int | None = None,
) -> Float[Array, " batch"]:
    """Return the focal loss: the cross-entropy, down-weighted for labels that are already predicted with confidence.

        loss = -(1 - p)^γ log p,   p = softmax(prediction)[label]

    Args:
      prediction: Logits of shape (batch, ..., classes). The loss is averaged over the axes between batch and classes.
      target: Integer labels of shape (batch, ...), or a pair `(labels, weights)` with one weight per position. A label
        outside 0 … classes - 1 gives NaN.
      gamma: Exponent γ ≥ 0. With 0, the loss is the cross-entropy.
      ignore_index: Label of the positions to ignore, or None.

    Raises:
      ValueError: if the shapes do not match, or if gamma is not one number ≥ 0.
      TypeError: if the labels or ignore_index are not integers, or the prediction is not real.

    >>> losses.focal(jnp.array([[0.0, 0.0]]), jnp.array([1]))
    Array([0.1732868], dtype=float32)

    Source: Lin et al. 2017, arXiv:1708.02002.
    """
    gamma = checks.in_range("focal", "gamma", gamma, "[0, inf)")
    prediction, target, weights = _targets.logits_and_target("focal", prediction, target, ignore_index)
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise TypeError(f"focal: labels must be integers, got {target.dtype}; cast them, as in y.astype(int)")
    gamma = jnp.asarray(gamma, prediction.dtype)
    log_p = _targets.label_logits(jax.nn.log_softmax(prediction), target)
    # (1 - p)^γ as exp(γ log(1 - p)), because the derivative of the power is infinite at p = 1 for γ < 1
    others = jnp.log(-jnp.expm1(jnp.minimum(log_p, -float(jnp.finfo(log_p.dtype).tiny))))  # type: ignore[no-untyped-call]
    return _mean_of_positions(-jnp.exp(gamma * others) * log_p, weights)


def hinge(prediction: Array, target: Array) -> Float[Array, " batch"]:
    """Return the hinge loss, summed over outputs; it is 0 for scores on the correct side of the margin.

        loss = Σ_k max(0, 1 - t_k z_k),   z = prediction, t = target

    Args:
      prediction: Scores of shape (batch, ...), positive for class 1.
      target: Classes -1 and 1, of the same shape. Other values give NaN.

    Raises:
      ValueError: if the shapes differ or have no batch axis.
      TypeError: if an argument is not an array of real numbers.

    >>> losses.hinge(jnp.array([[0.5, 2.0]]), jnp.array([[1, 1]]))
    Array([0.5], dtype=float32)

    Source: Cortes and Vapnik 1995.
    """
    z, t = _targets.real_pair("hinge", prediction, target)
    t = jnp.where(jnp.abs(t) == 1, t, jnp.nan)
    return _per_example(jnp.maximum(1 - t * z, jnp.zeros_like(z))).sum(-1)


def cosine_distance(prediction: Array, target: Array, *, eps: float = 1e-8) -> Float[Array, " batch"]:
    """Return one minus the cosine of the angle between prediction and target, in [0, 2].

        loss = 1 - prediction · target / max(|prediction| |target|, eps)

    Args:
      prediction: Vectors of shape (batch, ..., features). The loss is averaged over the axes between batch and
        features.
      target: Vectors of the same shape.
      eps: Lower bound on the product of the lengths, > 0.

    Raises:
      ValueError: if the shapes differ or have no batch axis, or if eps ≤ 0.
      TypeError: if an argument is not an array of real numbers.

    >>> losses.cosine_distance(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 3.0]]))
    Array([1.], dtype=float32)
    """
    eps = checks.in_range("cosine_distance", "eps", eps, "(0, inf)")
    prediction, target = _targets.real_pair("cosine_distance", prediction, target)
    lengths = _length(prediction) * _length(target)
    cosine = (prediction * target).sum(-1) / jnp.maximum(lengths, jnp.asarray(eps, lengths.dtype))
    return _per_example(1 - cosine).mean(-1)


def info_nce(prediction: Array, target: Array, *, temperature: float | Array = 0.1) -> Float[Array, " batch"]:
    """Return the contrastive loss (InfoNCE): the cross-entropy of identifying each vector's partner within the batch.

        loss_i = -log softmax_j(cos(prediction_i, target_j) / temperature)[j = i]

    Args:
      prediction: Vectors of shape (batch, features), one view of each example.
      target: Vectors of the same shape, the other view. For the loss in both directions, add
        `info_nce(target, prediction)`.
      temperature: A number > 0.

    Raises:
      ValueError: if the shapes differ or are not (batch, features), or if temperature ≤ 0.
      TypeError: if an argument is not an array of real numbers.

    >>> [f"{v:.3f}" for v in losses.info_nce(jnp.eye(2), jnp.eye(2), temperature=1.0)]
    ['0.313', '0.313']

    Source: van den Oord et al. 2018, arXiv:1807.03748; Chen et al. 2020, arXiv:2002.05709 (cosine similarity).
    """
    temperature = checks.in_range("info_nce", "temperature", temperature, "(0, inf)")
    prediction, target = _targets.real_pair("info_nce", prediction, target)
    if prediction.ndim != 2:
        raise ValueError(f"info_nce: vectors must be (batch, features), got {tuple(prediction.shape)}")
    a, b = (v / jnp.maximum(_length(v), jnp.asarray(1e-12, v.dtype))[:, None] for v in (prediction, target))
    return cross_entropy(a @ b.T / jnp.asarray(temperature, a.dtype), jnp.arange(len(a)))


def ctc(prediction: Array | tuple[Array, Array], target: Array, *, blank: int = 0) -> Float[Array, " batch"]:
    """Return the negative log-likelihood (in nats) of label sequences over all alignments with the frames (CTC).

        loss = -log Σ_alignments Π_t softmax(prediction_t)[alignment_t]

    An alignment assigns a class to each frame; merging repeated classes and then removing blanks gives the labels.

    Args:
      prediction: Logits of shape (batch, frames, classes), or `(logits, lengths)`, where lengths (batch,) are the
        numbers of frames.
      target: Integer labels of shape (batch, labels), padded at the end with -1. A label that is `blank` or is not a
        class gives NaN.
      blank: The class that means no label.

    Raises:
      ValueError: if the shapes do not match, or if blank is not a class.
      TypeError: if labels or lengths are not integers, or if the logits are not real.

    >>> f"{losses.ctc(jnp.zeros((1, 2, 3)), jnp.array([[1, -1]]))[0]:.3f}"  # 3 of the 9 paths: 1 1, 0 1, 1 0
    '1.099'

    Source: Graves et al. 2006; computed by `optax.ctc_loss`.
    """
    logits, lengths = prediction if isinstance(prediction, tuple) else (prediction, None)
    (logits,) = checks.real_arrays("ctc", {"prediction": logits})
    target = checks.array("ctc", "target", target)
    if logits.ndim != 3 or target.ndim != 2 or len(target) != len(logits):
        raise ValueError(
            "ctc: prediction must be (batch, frames, classes) and target (batch, labels), got "
            f"{tuple(logits.shape)} and {tuple(target.shape)}"
        )
    lengths = jnp.full(len(logits), logits.shape[1]) if lengths is None else checks.array("ctc", "lengths", lengths)
    for name, a in (("target", target), ("lengths", lengths)):
        if not jnp.issubdtype(a.dtype, jnp.integer):
            raise TypeError(f"ctc: {name} must hold integers, got {a.dtype}; cast it, as in {name}.astype(int)")
    if lengths.shape != (len(logits),):
        raise ValueError(f"ctc: lengths must be ({len(logits)},), one per sequence, got {tuple(lengths.shape)}")
    if not 0 <= blank < logits.shape[-1]:
        raise ValueError(f"ctc: blank must be a class, 0 … {logits.shape[-1] - 1}, got {blank}")
    padding = jnp.arange(logits.shape[1])[None] >= lengths[:, None]
    wrong = (target >= logits.shape[-1]) | (target == blank) | (target < -1)
    with jax.numpy_dtype_promotion("standard"):
        loss = optax.ctc_loss(
            logits,
            padding.astype(logits.dtype),
            jnp.maximum(target, 0),
            (target < 0).astype(logits.dtype),
            blank_id=blank,
        )
    return jnp.where(wrong.any(-1), jnp.nan, loss.astype(logits.dtype))


def _pair(where: str, names: str, prediction: Any) -> tuple[Any, Any]:
    if not isinstance(prediction, (tuple, list)) or len(prediction) != 2:
        fix = "; end the network with lambda y: tuple(jnp.split(y, 2, -1))" if hasattr(prediction, "shape") else ""
        raise TypeError(f"{where}: prediction must be {names}, got {checks.describe(prediction)}{fix}")
    return prediction[0], prediction[1]


def _length(vectors: Array) -> Array:
    """Return the lengths of vectors, with a gradient of 0 instead of NaN for a vector of zeros."""
    squares = jnp.square(vectors).sum(-1)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), squares)


def _mean_of_positions(values: Array, weights: Array | None) -> Array:
    """Return the weighted mean over the positions of each example, or 0 if all its weights are 0."""
    if weights is None:
        return _per_example(values).mean(-1)
    weighted = jnp.where(weights == 0, jnp.zeros_like(values), weights * values)
    total = _per_example(weights).sum(-1)
    return _per_example(weighted).sum(-1) / jnp.where(total == 0, jnp.ones_like(total), total)


def _per_example(values: Array) -> Array:
    return values.reshape(values.shape[0], math.prod(values.shape[1:]))  # -1 would be ambiguous for an empty batch


_ELSEWHERE = {  # names used by other libraries, in lower case without underscores
    "mse": "losses.mean_squared_error",
    "l2": "losses.squared_error",
    "mae": "losses.mean_absolute_error",
    "l1": "losses.mean_absolute_error",
    "bce": "losses.binary_cross_entropy",
    "sigmoidbinarycrossentropy": "losses.binary_cross_entropy",
    "bcewithlogits": "losses.binary_cross_entropy",
    "softmaxcrossentropy": "losses.cross_entropy",
    "softmaxcrossentropywithintegerlabels": "losses.cross_entropy",
    "sparsecategoricalcrossentropy": "losses.cross_entropy",
    "nll": "losses.cross_entropy, or metrics.nll",
}
# Assigned through globals(): if the module defined __getattr__ openly, type checkers would accept any name
globals()["__getattr__"] = missing_name("losses", __all__, _ELSEWHERE)
