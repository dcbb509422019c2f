"""Losses, one number per example.

Each returns an array of shape (batch,). The caller takes the mean, so that examples can be weighted. Prediction and
target must have equal shapes; they are not broadcast. They may have any real dtype. The loss is computed in the
floating dtype to which both are promoted. This is float32 for integers and booleans alone, and for 16-bit floats with
integers of 16 bits or more. Complex numbers raise TypeError. Bind options with `functools.partial`, as in
`partial(losses.cross_entropy, label_smoothing=0.1)`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

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
      TypeError: if an argument is not an array of real numbers.

    >>> losses.squared_error(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 0.0]]))
    Array([5.], dtype=float32)
    """
    prediction, target = real_pair("squared_error", prediction, target)
    return _per_example(jnp.square(prediction - target)).sum(-1)


def mean_squared_error(prediction: Array, target: Array) -> Float[Array, " batch"]:
    """Return the squared error, averaged over outputs.

        loss = 1/K Σ_k (prediction_k - target_k)²

    Args:
      prediction: Real numbers of shape (batch, ...).
      target: Real numbers of the same shape.

    Raises:
      ValueError: if the shapes differ.
      TypeError: if an argument is not an array of real numbers.

    >>> losses.mean_squared_error(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 0.0]]))
    Array([2.5], dtype=float32)
    """
    prediction, target = real_pair("mean_squared_error", prediction, target)
    return _per_example(jnp.square(prediction - target)).mean(-1)


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
    prediction, target = real_pair("huber", prediction, target)
    delta = jnp.asarray(checks.in_range("huber", "delta", delta, "(0, inf)"), prediction.dtype)
    error = jnp.abs(prediction - target)
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
      TypeError: if the labels are not integers, or the prediction is not real.

    >>> losses.cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1]))
    Array([0.6931472], dtype=float32)
    """
    smoothing = checks.in_range("cross_entropy", "label_smoothing", label_smoothing, "[0, 1]")
    prediction, target = logits_and_target("cross_entropy", prediction, target)
    smoothing = jnp.asarray(smoothing, prediction.dtype)
    # Shift first: otherwise large logits lose digits when the normaliser and the label's logit nearly cancel
    z = prediction - lax.stop_gradient(prediction.max(-1, keepdims=True))
    normaliser = jnp.log(jnp.exp(z).sum(-1))
    if jnp.issubdtype(target.dtype, jnp.integer):
        loss = normaliser - label_logits(z, target)
    else:
        # For a class that is masked by a logit of -inf, 0 · -inf would be NaN
        products = jnp.where(target == 0, jnp.zeros_like(z), z * target)
        loss = normaliser * target.sum(-1) - products.sum(-1)
    if not (isinstance(label_smoothing, (int, float)) and label_smoothing == 0):
        loss = (1 - smoothing) * loss + smoothing * (normaliser - z.mean(-1))
    return _per_example(loss).mean(-1)


def binary_cross_entropy(prediction: Array, target: Array) -> Float[Array, " batch"]:
    """Return the binary cross-entropy, summed over outputs.

        loss = -Σ_k  t_k log σ(z_k) + (1 - t_k) log(1 - σ(z_k)),   z = prediction

    Args:
      prediction: Logits of shape (batch, ...), without sigmoid.
      target: Labels 0 and 1 (integers, booleans or floats), or probabilities, of the same shape. An integer other than
        0 and 1 gives NaN.

    Raises:
      ValueError: if the shapes differ.
      TypeError: if an argument is not an array of real numbers.

    >>> losses.binary_cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([[1, 0]]))
    Array([1.3862944], dtype=float32)
    """
    target = checks.array("binary_cross_entropy", "target", target)
    if integers := jnp.issubdtype(target.dtype, jnp.integer):
        target = class_indices(target, 2).astype(jnp.int8)  # 8 bits do not change the dtype of the prediction
    prediction, t = real_pair("binary_cross_entropy", prediction, target)
    if integers:
        t = jnp.where(t == 2, jnp.nan, t)
    # With log σ(z) = -softplus(-z) and 1 - σ(z) = σ(-z), no logarithm of zero occurs and large z keep their digits
    return _per_example(t * jax.nn.softplus(-prediction) + (1 - t) * jax.nn.softplus(prediction)).sum(-1)


def real_pair(where: str, prediction: Any, target: Any) -> list[Array]:
    """Return prediction and target in one floating dtype; raise unless they have the same shape (batch, ...)."""
    prediction, target = checks.real_arrays(where, {"prediction": prediction, "target": target})
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
    return [prediction, target]


def logits_and_target(where: str, prediction: Any, target: Any) -> list[Array]:
    """Return floating logits and their target: integer labels unchanged, or probabilities in the logits' dtype.

    Raises:
      ValueError, TypeError: unless `target` is one integer label per row of logits, or has the logits' shape.
    """
    prediction, target = checks.array(where, "prediction", prediction), checks.array(where, "target", target)
    if prediction.ndim < 2 or prediction.shape[-1] == 0:
        raise ValueError(f"{where}: prediction must be logits (batch, classes), got {tuple(prediction.shape)}")
    rows = prediction.shape[:-1]
    if jnp.issubdtype(target.dtype, jnp.integer):
        if target.shape == rows:
            return [*checks.real_arrays(where, {"prediction": prediction}), target]
        hint = "; pass y.argmax(-1) for one-hot rows" if target.shape == prediction.shape else ""
        hint = "; use y[:, 0]" if target.shape == (*rows, 1) else hint
        raise ValueError(f"{where}: integer labels must be {rows}, got {tuple(target.shape)}{hint}")
    if not jnp.issubdtype(target.dtype, jnp.floating):
        hint = "; use y.astype(int)" if target.dtype == bool else ""
        raise TypeError(f"{where}: target must be integer labels or probabilities, got {target.dtype}{hint}")
    if target.shape == rows:
        raise TypeError(f"{where}: labels must be integers, got {target.dtype}; for real targets use squared_error")
    if target.shape != prediction.shape:
        raise ValueError(
            f"{where}: probabilities must have the shape of the logits {tuple(prediction.shape)}, "
            f"got {tuple(target.shape)}"
        )
    return checks.real_arrays(where, {"prediction": prediction, "target": target})


def class_indices(labels: Array, classes: int) -> Array:
    """Return labels of any integer dtype as int32, `classes` for those outside 0 … classes - 1."""
    wide = labels if labels.dtype.itemsize >= 4 else labels.astype(jnp.int32)  # 8 bits may not hold `classes`
    return jnp.where((wide < 0) | (wide >= classes), classes, wide).astype(jnp.int32)


def label_logits(prediction: Array, labels: Array) -> Array:
    """Return the logit of each label, (batch, ..., classes) -> (batch, ...); NaN if the label is not a class."""
    indices = class_indices(labels, prediction.shape[-1])[..., None]
    return jnp.take_along_axis(prediction, indices, -1, mode="fill", fill_value=jnp.nan)[..., 0]


def _per_example(values: Array) -> Array:
    return values.reshape(values.shape[0], math.prod(values.shape[1:]))  # -1 is ambiguous without examples


_ELSEWHERE = {  # names of other libraries, in lower case without underscores
    "mse": "losses.mean_squared_error",
    "l2": "losses.squared_error",
    "mae": "losses.huber, or |error| as a function",
    "l1": "losses.huber, or |error| as a function",
    "bce": "losses.binary_cross_entropy",
    "sigmoidbinarycrossentropy": "losses.binary_cross_entropy",
    "bcewithlogits": "losses.binary_cross_entropy",
    "softmaxcrossentropy": "losses.cross_entropy",
    "softmaxcrossentropywithintegerlabels": "losses.cross_entropy",
    "sparsecategoricalcrossentropy": "losses.cross_entropy",
    "nll": "losses.cross_entropy, or metrics.nll",
}
# Assigned, because a type checker would assume that a module that defines this function has every name
globals()["__getattr__"] = checks.missing_name("losses", __all__, _ELSEWHERE)
