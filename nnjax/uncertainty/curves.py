"""Compute scores as a function of the share of rejected inputs or of the ensemble size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from nnjax import checks, metrics
from nnjax.types import Key
from nnjax.uncertainty.ensemble import check_members, log_mean_probabilities

if TYPE_CHECKING:
    from jaxtyping import Float


class SizeCurve(NamedTuple):
    """Scores by ensemble size, as statistics over subsets of the members; every field has shape (sizes,)."""

    size: Array
    accuracy: Array  # mean over subsets
    accuracy_sd: Array  # standard deviation over subsets
    nll: Array
    nll_sd: Array


def rejection_curve(
    score: Array, uncertainty: Array, weights: Array | None = None
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Return the mean score of the remaining inputs as the most uncertain ones are rejected one by one.

        curve(d) = Σ_kept w·score / Σ_kept w,   kept: the least uncertain inputs, a share of 1 - d

    If uncertainty predicts errors, accuracy rises with the rejected share. The mean of the curve is the area under it.
    Equally uncertain inputs are assigned their mean score, so their order does not matter. Inputs with a NaN
    uncertainty are rejected first.

    Args:
      score: Score of each input, of shape (n,), such as whether the prediction is correct.
      uncertainty: Uncertainty of each input, of shape (n,), such as the total of `entropy_decomposition`.
      weights: Per-example weights (n,), or None. Inputs of weight 0 are ignored, even if their score is NaN. The
        result is NaN if a weight is negative or all remaining weights are 0.

    Returns:
      The rejected share of the weight, which rises from 0 (to 1 - 1/n for equal weights), and the mean score of the
      remaining inputs, both of shape (n,).

    Raises:
      ValueError: if the shapes differ or are not (n,), or if n is 0.
      TypeError: if an argument is not an array of real numbers.

    >>> right = jnp.array([True, False, True, True])
    >>> dropped, accuracy = uncertainty.rejection_curve(right, jnp.array([0.1, 0.9, 0.2, 0.3]))
    >>> dropped, accuracy
    (Array([0.  , 0.25, 0.5 , 0.75], dtype=float32), Array([0.75, 1.  , 1.  , 1.  ], dtype=float32))

    Source: Nadeem et al. 2009 (accuracy-rejection curves).
    """
    where = "rejection_curve"
    score, uncertainty = checks.array(where, "score", score), checks.array(where, "uncertainty", uncertainty)
    checks.real_arrays(where, {"uncertainty": uncertainty})
    weights = jnp.ones(score.shape, bool) if weights is None else weights
    score, weights = checks.real_arrays(where, {"score": score, "weights": weights}, wide=True)
    weights = jnp.where(weights < 0, jnp.nan, weights)
    if score.ndim != 1 or not score.shape == uncertainty.shape == weights.shape or score.size == 0:
        raise ValueError(
            f"{where}: score, uncertainty and weights must be one number per input, (n,), "
            f"got {score.shape}, {uncertainty.shape} and {weights.shape}"
        )
    if jnp.issubdtype(uncertainty.dtype, jnp.floating):
        uncertainty = jnp.where(jnp.isnan(uncertainty), jnp.inf, uncertainty)
    order = uncertainty.argsort()
    score, uncertainty, weights = score[order], uncertainty[order], weights[order]
    score = jnp.where(weights == 0, jnp.zeros_like(score), score)  # 0 · NaN would be NaN
    first = jnp.concatenate([jnp.zeros(1, bool), uncertainty[1:] != uncertainty[:-1]])
    tie = first.cumsum(dtype=jnp.int32)  # index of the group of equally uncertain inputs
    total, weight = (jax.ops.segment_sum(v, tie, score.size) for v in (weights * score, weights))
    mean = total / jnp.where(weight == 0, jnp.ones_like(weight), weight)
    remaining = weights.cumsum()
    curve = (weights * mean[tie]).cumsum() / remaining  # NaN if the remaining weights are all 0
    return ((remaining[-1] - remaining) / remaining[-1])[::-1], curve[::-1]


def ensemble_size_curve(
    logits: Array,
    y: Array,
    key: Key,
    *,
    weights: Array | None = None,
    sizes: Sequence[int] | None = None,
    repeats: int = 32,
) -> SizeCurve:
    """Return the accuracy and NLL of ensembles of several sizes, averaged over subsets of the members.

    Each subset predicts with `log_mean_probabilities`. For each size, all subsets are used if there are at most
    max(repeats, members) of them, otherwise `repeats` random subsets. Large subsets share members, so their standard
    deviation underestimates the spread of independent ensembles.

    Args:
      logits: Logits of the members, of shape (members, n, classes).
      y: Integer labels (n,), or probabilities (n, classes).
      key: Random key for the subsets.
      weights: Per-example weights (n,), or None.
      sizes: Ensemble sizes; None means 1, 2, 4, … and all members.
      repeats: Number of random subsets for each size.

    Raises:
      ValueError, TypeError: if a shape is wrong, a size is not in 1 … members, or repeats < 1.

    >>> logits = jnp.log(jnp.array([[[0.9, 0.1]], [[0.3, 0.7]]]))
    >>> curve = uncertainty.ensemble_size_curve(logits, jnp.array([0]), jax.random.key(0))
    >>> curve.size, curve.accuracy, curve.accuracy_sd
    (Array([1, 2], dtype=int32), Array([0.5, 1. ], dtype=float32), Array([0.5, 0. ], dtype=float32))
    """
    where = "ensemble_size_curve"
    logits, key = check_members(where, logits), checks.key(where, key)
    members, repeats = logits.shape[0], checks.positive_int(where, "repeats", repeats)
    if sizes is None:
        sizes = [*itertools.takewhile(lambda size: size < members, (2**i for i in itertools.count())), members]
    sizes = [checks.positive_int(where, "sizes", size) for size in checks.items(where, "sizes", sizes, "[1, 2, 4]")]
    if not sizes or max(sizes) > members:
        raise ValueError(f"{where}: sizes must be in 1 … {members}, the number of members, got {sizes}")

    def scores(subset: Array) -> tuple[Array, Array]:
        prediction = log_mean_probabilities(logits[subset])
        return metrics.accuracy(prediction, y, weights), metrics.nll(prediction, y, weights)

    rows = []
    for size in sizes:
        if math.comb(members, size) <= max(repeats, members):
            subsets = jnp.array(list(itertools.combinations(range(members), size)))
        else:
            keys = jax.random.split(jax.random.fold_in(key, size), repeats)
            subsets = jax.vmap(lambda key: jax.random.permutation(key, members))(keys)[:, :size]
        accuracy, nll = lax.map(scores, subsets)
        rows.append((accuracy.mean(), accuracy.std(), nll.mean(), nll.std()))
    return SizeCurve(jnp.array(sizes), *(jnp.stack(column) for column in zip(*rows, strict=True)))
