"""Find the ε of a denominator √(v + ε) at each step."""

import numpy as np

from nnjax.optcheck.reading.least_squares import best_coefficients, determined, exact_steps
from nnjax.optcheck.reading.terms import OVER, Terms

LARGE = 0.85  # from this quantile on, v is so large that ε hardly matters
SURE = 1e-2  # largest relative error of an element's ε
CHOSEN = 8  # number of elements whose ε is averaged
ROUNDS = 6  # of Newton's method
ROUGH = 1e-7  # relative error of the coefficients without ε
NEWTON = "change of ε"


def with_eps_inside(attempt: Terms) -> tuple[Terms, np.ndarray] | None:
    """Return the equation with D = √(v + ε), and ε at each step, NaN if unknown; None if there is no such ε.

    The numerator is solved first where v is large. Then each element with a small v has an ε of its own, because
    y = numerator / √(v + ε). The median of these is improved by Newton's method.
    """
    v = attempt.square
    assert v is not None
    y = attempt.y / attempt.d
    start = best_coefficients(attempt, v >= np.quantile(v, LARGE, axis=1, keepdims=True), always=True)
    above, beside = _parts(attempt, start)
    rest = y - beside / attempt.d
    rounding = attempt.rounding / attempt.d
    own = (above / rest) ** 2 - v
    error = (v + np.abs(own)) * (ROUGH + 2 * np.abs(rounding / rest)) / own
    error = np.where(np.isfinite(error) & (own > 0), error, np.inf)
    order = np.argsort(error, axis=1)[:, :CHOSEN]
    best = np.where(np.take_along_axis(error, order, 1) < SURE, np.take_along_axis(own, order, 1), np.nan)
    if not np.isfinite(best).any():
        return None
    middle = np.maximum(np.isfinite(best).sum(1, keepdims=True) - 1, 0) // 2
    eps = np.take_along_axis(np.sort(best, axis=1), middle, 1)[:, 0]  # NaN comes last
    eps = np.where(np.isfinite(eps), eps, np.median(eps[np.isfinite(eps)]))
    for _ in range(ROUNDS):
        current = attempt.with_eps_inside(eps)
        # (y - beside) √(v + ε) = above, whose derivative in ε is (y - beside) / (2 √(v + ε))
        slope = -(current.y - _parts(current, start)[1]) / (2 * (v + eps[:, None]))
        solution = best_coefficients(current._replace(values=current.values | {NEWTON: slope}), np.ones_like(current.y))
        start, change = solution[:, :-1], solution[:, -1]
        eps = np.clip(eps + np.nan_to_num(change), eps / 10, eps * 10)
    # a constant v, such as at the first step, scales the numerator as ε does
    unknown = slope.any(1) & ~determined(current._replace(values=current.values | {NEWTON: slope}))
    if unknown.all():
        return None
    if unknown.any():
        # ε may be known although two other terms are proportional, such as the first moment and the gradient at first
        usual = np.where(unknown, np.median(eps[~unknown]), eps)
        eps = np.where(exact_steps(attempt.with_eps_inside(usual)), usual, eps)
    return attempt.with_eps_inside(eps), np.where(unknown, np.nan, eps)


def _parts(attempt: Terms, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of the divided and of the undivided terms."""
    products = {term: c[:, None] * x for (term, x), c in zip(attempt.values.items(), coefficients.T, strict=True)}
    zero = np.zeros_like(attempt.y)
    above = sum((x for term, x in products.items() if term.endswith(OVER)), zero)
    return above, sum((x for term, x in products.items() if not term.endswith(OVER)), zero)
