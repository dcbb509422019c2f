"""Combine the logits of a classifier ensemble into logits that metrics and losses accept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array, lax

from nnjax import checks
from nnjax.nn._features import wide_dtype

if TYPE_CHECKING:
    from jaxtyping import Float


def log_mean_probabilities(logits: Array) -> Float[Array, "n classes"]:
    """Average the members' probabilities and return log-probabilities, which are valid logits.

        log p,   p = 1/M Σ_m softmax(logits_m)

    Args:
      logits: Logits of the members, of shape (members, n, classes).

    Raises:
      ValueError: if the shape is wrong or there are no members.
      TypeError: if the logits are not floating-point.

    >>> logits = jnp.log(jnp.array([[[0.9, 0.1]], [[0.3, 0.7]]]))
    >>> prediction = uncertainty.log_mean_probabilities(logits)
    >>> jnp.exp(prediction).round(3)
    Array([[0.6, 0.4]], dtype=float32)
    >>> metrics.expected_calibration_error(prediction, jnp.array([0])).round(3)
    Array(0.4, dtype=float32)

    Source: Lakshminarayanan et al. 2017, arXiv:1612.01474.
    """
    log_p = jax.nn.log_softmax(check_members("log_mean_probabilities", logits))
    # If all members agree, this returns exactly their value (log of a mean of ones is 0); logsumexp - log M may not
    top = lax.stop_gradient(log_p.max(0))
    top = jnp.where(jnp.isneginf(top), jnp.zeros_like(top), top)  # a class that all members mask with -inf
    return top + jnp.log(jnp.exp(log_p - top[None]).mean(0))


def mean_logits(logits: Array) -> Float[Array, "n classes"]:
    """Average the members' logits, which gives the normalised geometric mean of their probabilities.

        prediction = 1/M Σ_m logits_m

    Args:
      logits: Logits of the members, of shape (members, n, classes).

    Raises:
      ValueError: if the shape is wrong or there are no members.
      TypeError: if the logits are not floating-point.

    >>> uncertainty.mean_logits(jnp.array([[[2.0, 0.0]], [[0.0, 1.0]]]))
    Array([[1. , 0.5]], dtype=float32)
    """
    return check_members("mean_logits", logits).mean(0)


def vote(logits: Array) -> Float[Array, "n classes"]:
    """Let the members vote and return the logarithm of each class's share of the votes.

        log p,   p_k = share of the members whose largest logit is for class k

    Args:
      logits: Logits of the members, of shape (members, n, classes).

    Returns:
      Logarithms of shape (n, classes), -inf for classes without votes, NaN for an input if a member predicts NaN.
      `metrics.accuracy`, `brier` and `expected_calibration_error` accept them, and the first of tied classes wins.
      `nll` is infinite if a label gets no votes.

    Raises:
      ValueError: if the shape is wrong or there are no members.
      TypeError: if the logits are not floating-point.

    >>> logits = jnp.array([[[2.0, 1.0]], [[3.0, 0.0]], [[0.0, 1.0]], [[9.0, 1.0]]])
    >>> jnp.exp(uncertainty.vote(logits)).round(2)
    Array([[0.75, 0.25]], dtype=float32)
    """
    logits = check_members("vote", logits)
    shares = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=logits.dtype).mean(0)
    diverged = jnp.isnan(logits).any((0, 2))  # argmax would count a NaN as a vote
    return jnp.where(diverged[:, None], jnp.full_like(shares, jnp.nan), jnp.log(shares))


def check_members(where: str, values: Array, last: str = "classes") -> Array:
    """Return predictions (members, n, last) in float32 or a wider dtype; raise if shape or dtype is wrong."""
    values = checks.array(where, "predictions", values)
    if values.ndim != 3 or values.shape[0] == 0 or values.shape[2] == 0:
        hint = ""
        if values.ndim == 2:
            single_output = "; for a single output pass values[..., None]" if last == "outputs" else ""
            hint = f"{single_output}; for a single network pass an ensemble of one, prediction[None]"
        hint = "; use jax.vmap over the leading axes" if values.ndim > 3 else hint
        raise ValueError(f"{where}: predictions must be (members, n, {last}), got {values.shape}{hint}")
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(
            f"{where}: predictions must be floating-point, got {values.dtype}; pass logits or means, not labels"
        )
    return values.astype(wide_dtype(values.dtype))
