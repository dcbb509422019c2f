"""Decompose an ensemble's predictive uncertainty into aleatoric and epistemic parts."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nnjax import checks
from nnjax.uncertainty.ensemble import check_members, log_mean_probabilities


class Uncertainty(NamedTuple):
    """Uncertainty per input: entropies in nats (n,), or variances (n, outputs) in squared units of the target."""

    total: Array  # aleatoric + epistemic
    aleatoric: Array  # mean uncertainty of the members, due to noise in the data
    epistemic: Array  # disagreement between members, reducible by more data


def entropy_decomposition(logits: Array) -> Uncertainty:
    """Decompose the predictive entropy of a classifier ensemble into aleatoric and epistemic parts.

        total = H(p),   aleatoric = 1/M Σ_m H(p_m),   epistemic = total - aleatoric = 1/M Σ_m KL(p_m ‖ p)

    with p_m = softmax(logits_m) and p = 1/M Σ_m p_m. The epistemic part is the mutual information between label and
    member. It is computed as the KL divergence, which is accurate if the members nearly agree and exactly 0 if they
    agree.

    Args:
      logits: Logits of the members, of shape (members, n, classes).

    Returns:
      Three entropies of shape (n,), in nats. The total is at most log classes, the epistemic part at most log members.

    Raises:
      ValueError: if the shape is wrong or there are no members.
      TypeError: if the logits are not floating-point.

    >>> confident_disagreement = jnp.array([[[99.0, 0.0]], [[0.0, 99.0]]])
    >>> uncertainty.entropy_decomposition(confident_disagreement).epistemic
    Array([0.6931472], dtype=float32)

    Source: Houlsby et al. 2011, arXiv:1112.5745; Depeweg et al. 2018, arXiv:1710.07283.
    """
    logits = check_members("entropy_decomposition", logits)
    floor = float(np.finfo(logits.dtype).min) / 4  # finite, so that 0 · log 0 is 0 instead of NaN
    log_p_m = jnp.maximum(jax.nn.log_softmax(logits), floor)
    log_p = jnp.maximum(log_mean_probabilities(logits), floor)[None]
    p_m, p = jnp.exp(log_p_m), jnp.exp(log_p)
    aleatoric = -(p_m * log_p_m).sum(-1).mean(0)
    # Σ p_m log(p_m / p) = Σ [p_m log(p_m / p) - p_m + p], whose terms are all ≥ 0 and therefore do not cancel
    d = log_p_m - log_p
    near = p_m * (d + jnp.expm1(-jnp.maximum(d, -1)))  # the same term, but more accurate near d = 0
    terms = jnp.where(d > -1, near, p_m * d - p_m + p)
    epistemic = jnp.maximum(terms, 0).sum(-1).mean(0)
    return Uncertainty(aleatoric + epistemic, aleatoric, epistemic)


def variance_decomposition(means: Array, variances: Array | None = None) -> Uncertainty:
    """Decompose the predictive variance of a regression ensemble (law of total variance).

        total = aleatoric + epistemic,   aleatoric = 1/M Σ_m variance_m,   epistemic = 1/M Σ_m (mean_m - mean)²

    The ensemble predicts the mixture of its members, with mean `means.mean(0)`. The epistemic part therefore has the
    factor 1/M, not 1/(M - 1).

    Args:
      means: Predictions of the members, of shape (members, n, outputs).
      variances: Noise variances predicted by the members, of the same shape, or None; the aleatoric part is then
        0. A negative variance gives NaN.

    Returns:
      Three variances of shape (n, outputs).

    Raises:
      ValueError: if a shape is wrong or there are no members.
      TypeError: if the predictions are not floating-point.

    >>> u = uncertainty.variance_decomposition(jnp.array([[[1.0]], [[3.0]]]), jnp.array([[[0.5]], [[1.5]]]))
    >>> [float(v[0, 0]) for v in u]
    [2.0, 1.0, 1.0]

    Source: Lakshminarayanan et al. 2017, arXiv:1612.01474.
    """
    where = "variance_decomposition"
    means = check_members(where, means, "outputs")
    epistemic = (means - means[:1]).var(0)  # shifted, so that the variance of equal members is exactly 0
    if variances is None:
        return Uncertainty(epistemic, jnp.zeros_like(epistemic), epistemic)
    variances = check_members(where, variances, "outputs")
    means, variances = checks.real_arrays(where, {"means": means, "variances": variances})
    if variances.shape != means.shape:
        raise ValueError(f"{where}: variances must have the same shape as means, {means.shape}, got {variances.shape}")
    epistemic = epistemic.astype(means.dtype)
    aleatoric = jnp.where(variances < 0, jnp.nan, variances).mean(0)
    return Uncertainty(aleatoric + epistemic, aleatoric, epistemic)
