"""Check and convert the predictions and targets of losses and metrics."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from nnjax import checks


def real_pair(where: str, prediction: Any, target: Any) -> list[Array]:
    """Return prediction and target in a common floating dtype; raise unless they have the same shape (batch, ...)."""
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


def logits_and_target(
    where: str, prediction: Any, target: Any, ignore_index: int | None = None
) -> tuple[Array, Array, Array | None]:
    """Return the logits as floats, the target, and the per-position weights; None means equal weights.

    Integer labels are returned unchanged, except that ignored labels become 0; probabilities are returned in the dtype
    of the logits. Logits at positions of weight 0 become 0, so they cannot make a gradient NaN. Negative weights become
    NaN.

    Raises:
      ValueError, TypeError: if the prediction is not (batch, ..., classes), if the target is neither one integer label
        per position nor probabilities of the same shape as the logits, if the weights are not one per position, or if
        `ignore_index` is combined with probabilities.
    """
    pair = isinstance(target, tuple) and len(target) == 2 and all(hasattr(part, "shape") for part in target)
    target, weights = target if pair else (target, None)
    prediction, target = checks.array(where, "prediction", prediction), checks.array(where, "target", target)
    logits, target = _logits_and_target(where, prediction, target)
    if weights is not None:
        weights = checks.array(where, "per-position weights", weights)
        if weights.shape != logits.shape[:-1]:
            raise ValueError(
                f"{where}: per-position weights must have the shape {tuple(logits.shape[:-1])}, got "
                f"{tuple(weights.shape)}"
            )
        # Cast a mask to the dtype of the logits, so that it does not promote them
        if weights.dtype == bool or jnp.issubdtype(weights.dtype, jnp.integer):
            weights = weights.astype(logits.dtype)
        logits, weights = checks.real_arrays(where, {"prediction": logits, "per-position weights": weights})
        weights = jnp.where(weights < 0, jnp.nan, weights)
    if ignore_index is not None:
        index = checks.positive_int(where, "ignore_index", ignore_index, -(2**31))
        if not jnp.issubdtype(target.dtype, jnp.integer):
            raise TypeError(f"{where}: ignore_index needs integer labels, got {target.dtype}; pass (target, weights)")
        limits = jnp.iinfo(target.dtype)  # type: ignore[no-untyped-call]
        ignored = target == index if limits.min <= index <= limits.max else jnp.zeros(target.shape, bool)
        target = jnp.where(ignored, jnp.zeros_like(target), target)
        weights = jnp.where(ignored, 0, jnp.ones(target.shape, logits.dtype) if weights is None else weights)
    if weights is not None:
        logits = jnp.where(weights[..., None] == 0, jnp.zeros_like(logits), logits)
        if not jnp.issubdtype(target.dtype, jnp.integer):
            target = target.astype(logits.dtype)
    return logits, target, weights


def _logits_and_target(where: str, prediction: Array, target: Array) -> list[Array]:
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
    """Return labels of any integer dtype as int32, with `classes` for labels outside 0 … classes - 1."""
    wide = labels if labels.dtype.itemsize >= 4 else labels.astype(jnp.int32)  # `classes` may not fit into 8 bits
    return jnp.where((wide < 0) | (wide >= classes), classes, wide).astype(jnp.int32)


def label_logits(prediction: Array, labels: Array) -> Array:
    """Return the logit of each label, (batch, ..., classes) -> (batch, ...), or NaN if the label is not a class."""
    indices = class_indices(labels, prediction.shape[-1])[..., None]
    return jnp.take_along_axis(prediction, indices, -1, mode="fill", fill_value=jnp.nan)[..., 0]
