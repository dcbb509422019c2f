"""How sure an ensemble is, and why: the uncertainty of its prediction and its two parts."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nnjax.uncertainty.ensemble import log_mean_probabilities, members_of


class Uncertainty(NamedTuple):
    """Uncertainty of each input: entropies in nats (n,), or variances (n, outputs) in the targets' units squared."""

    total: Array  # aleatoric + epistemic
    aleatoric: Array  # what each member finds open, on average: noise in the data
    epistemic: Array  # where the members differ: what more data would settle


def classification(logits: Array) -> Uncertainty:
    """The entropy of an ensemble's prediction, and its two parts, in nats.

        total = H(p),   aleatoric = 1/M Σ_m H(p_m),   epistemic = total - aleatoric = 1/M Σ_m KL(p_m ‖ p)

    with p_m = softmax(logits_m) and p = 1/M Σ_m p_m. The epistemic part is the mutual information of label and member.
    It is computed by its second form, which keeps digits where the members nearly agree and is exactly 0 where they do.

    Args:
      logits: (members, n, classes).

    Returns:
      Three numbers per input, (n,) each: total in [0, log classes], epistemic in [0, log members].

    Raises:
      ValueError, TypeError: for other shapes, no members, or integers.

    >>> certain_but_at_odds = jnp.array([[[99.0, 0.0]], [[0.0, 99.0]]])
    >>> uncertainty.classification(certain_but_at_odds).epistemic
    Array([0.6931472], dtype=float32)

    Source: Houlsby et al. 2011, arXiv:1112.5745; Depeweg et al. 2018, arXiv:1710.07283.
    """
    logits = members_of("classification", logits)
    floor = float(np.finfo(logits.dtype).min) / 4  # for 0 · log 0 to be 0 and not NaN
    log_p_m = jnp.maximum(jax.nn.log_softmax(logits), floor)
    log_p = jnp.maximum(log_mean_probabilities(logits), floor)[None]
    p_m, p = jnp.exp(log_p_m), jnp.exp(log_p)
    aleatoric = -(p_m * log_p_m).sum(-1).mean(0)
    # Σ p_m log(p_m / p) = Σ [p_m log(p_m / p) - p_m + p]: no term is negative, so that none cancel
    d = log_p_m - log_p
    near = p_m * (d + jnp.expm1(-jnp.maximum(d, -1)))  # the same term, without subtracting p_m from nearly itself
    terms = jnp.where(d > -1, near, p_m * d - p_m + p)
    epistemic = jnp.maximum(terms, 0).sum(-1).mean(0)
    return Uncertainty(aleatoric + epistemic, aleatoric, epistemic)


def regression(means: Array, variances: Array | None = None) -> Uncertainty:
    """The variance of an ensemble's prediction, and its two parts: the law of total variance.

        total = aleatoric + epistemic,   aleatoric = 1/M Σ_m variance_m,   epistemic = 1/M Σ_m (mean_m - mean)²

    The members are taken as a mixture, hence 1/M and not 1/(M - 1). The prediction itself is `means.mean(0)`.

    Args:
      means: what the members predict, (members, n, outputs).
      variances: the noise that they predict, the same shape; None for members that predict none, aleatoric is 0 then.

    Returns:
      Three variances per input and output, (n, outputs) each.

    Raises:
      ValueError, TypeError: for other shapes, no members, or integers.

    >>> u = uncertainty.regression(jnp.array([[[1.0]], [[3.0]]]), jnp.array([[[0.5]], [[1.5]]]))
    >>> [float(v[0, 0]) for v in u]
    [2.0, 1.0, 1.0]

    Source: Lakshminarayanan et al. 2017, arXiv:1612.01474.
    """
    means = members_of("regression", means, "outputs")
    epistemic = (means - means[:1]).var(0)  # shifted, so that members that agree differ by exactly 0
    if variances is None:
        return Uncertainty(epistemic, jnp.zeros_like(epistemic), epistemic)
    variances = members_of("regression", variances, "outputs").astype(means.dtype)
    if variances.shape != means.shape:
        raise ValueError(f"regression: variances must have the means' shape {means.shape}, got {variances.shape}")
    aleatoric = variances.mean(0)
    return Uncertainty(aleatoric + epistemic, aleatoric, epistemic)
