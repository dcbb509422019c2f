"""What an ensemble of classifiers predicts: logits again, which metrics and losses take as a single network's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array, lax

if TYPE_CHECKING:
    from jaxtyping import Float


def log_mean_probabilities(logits: Array) -> Float[Array, "n classes"]:
    """The members' probabilities averaged, as log-probabilities, which are logits too.

        log p,   p = 1/M Σ_m softmax(logits_m)

    Args:
      logits: (members, n, classes).

    Raises:
      ValueError, TypeError: for other shapes, no members, or integers.

    >>> logits = jnp.log(jnp.array([[[0.9, 0.1]], [[0.3, 0.7]]]))
    >>> prediction = uncertainty.log_mean_probabilities(logits)
    >>> jnp.exp(prediction).round(3)
    Array([[0.6, 0.4]], dtype=float32)
    >>> metrics.expected_calibration_error(prediction, jnp.array([0])).round(3)
    Array(0.4, dtype=float32)

    Source: Lakshminarayanan et al. 2017, arXiv:1612.01474.
    """
    log_p = jax.nn.log_softmax(members_of("log_mean_probabilities", logits))
    # logsumexp - log M would not give back, bit for bit, what all members agree on; log of a mean of ones is 0
    top = lax.stop_gradient(log_p.max(0))
    top = jnp.where(jnp.isneginf(top), jnp.zeros_like(top), top)  # a class that all members mask
    return top + jnp.log(jnp.exp(log_p - top[None]).mean(0))


def mean_logits(logits: Array) -> Float[Array, "n classes"]:
    """The members' logits averaged: the geometric mean of their probabilities, normalised.

        1/M Σ_m logits_m

    Args:
      logits: (members, n, classes).

    Raises:
      ValueError, TypeError: for other shapes, no members, or integers.

    >>> uncertainty.mean_logits(jnp.array([[[2.0, 0.0]], [[0.0, 1.0]]]))
    Array([[1. , 0.5]], dtype=float32)
    """
    return members_of("mean_logits", logits).mean(0)


def vote(logits: Array) -> Float[Array, "n classes"]:
    """The members' votes, as logarithms of their shares.

        log p,   p_k = share of the members whose largest logit is the k-th

    Args:
      logits: (members, n, classes).

    Returns:
      (n, classes), -inf for classes without a vote. `metrics.accuracy` (of tied classes the first wins), `brier` and
      `expected_calibration_error` take it as it is; `nll` is infinite as soon as no member votes for a label.

    Raises:
      ValueError, TypeError: for other shapes, no members, or integers.

    >>> logits = jnp.array([[[2.0, 1.0]], [[3.0, 0.0]], [[0.0, 1.0]], [[9.0, 1.0]]])
    >>> jnp.exp(uncertainty.vote(logits)).round(2)
    Array([[0.75, 0.25]], dtype=float32)
    """
    logits = members_of("vote", logits)
    shares = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=logits.dtype).mean(0)
    diverged = jnp.isnan(logits).any((0, 2))  # a member without an opinion is not to go unnoticed
    return jnp.where(diverged[:, None], jnp.full_like(shares, jnp.nan), jnp.log(shares))


def members_of(where: str, values: Array, last: str = "classes") -> Array:
    """Predictions of members, (members, n, ...), in float32 at least."""
    values = jnp.asarray(values)
    if values.ndim != 3 or values.shape[0] == 0:
        hint = ""
        if values.ndim == 2:
            one = "; those of one output are values[..., None]" if last == "outputs" else ""
            hint = f"{one}; a single network's are an ensemble of one, prediction[None]"
        hint = "; jax.vmap over the axes before" if values.ndim > 3 else hint
        raise ValueError(f"{where}: predictions must be (members, n, {last}), got {values.shape}{hint}")
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"{where}: predictions must be floating, got {values.dtype}; give logits or means, not labels")
    return wide(values)


def wide(values: Array) -> Array:
    """In float32 at least."""
    return values if values.dtype.itemsize >= 4 else values.astype(jnp.float32)
