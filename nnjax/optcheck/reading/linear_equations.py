"""Solve equations that are linear in their coefficients, at each step, and check that every element is exact."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nnjax.optcheck.reading.terms import EPS, Arrays, Terms

EXACT = 2e-9  # largest error of an equation relative to the sum of the sizes of its terms
CLOSE = 3e-9  # the same with the exact coefficients of another equation
LOOSE = 1e-6  # the same with coefficients that were read, and the largest relative difference of equal coefficients
PRECISION = 1e-12  # relative error of a term; elements with more rounding are weighted less
UNSEEN = 1e-9  # largest share of a term at a step at which its coefficient is not determined
SINGULAR = 1e-10  # smallest ratio of singular values at which coefficients are determined
PROBE = 8  # the step at which a set of terms is tried first


class Equation(NamedTuple):
    """An equation with coefficients."""

    terms: Terms
    coefficients: Arrays
    """For each term (steps,): ∞ at steps at which no coefficient is determined, NaN if the term is too small."""


def first_exact(attempts: Iterator[Terms]) -> Equation | None:
    """Return the equation of the first attempt that is exact at all steps, without unnecessary terms."""
    for attempt in attempts:
        solve = _solve_limit if attempt.form in ("max", "min") else _solve
        if (coefficients := solve(attempt)) is None:
            continue
        for term in [term for term in attempt.values if term != EPS and solve is _solve]:
            fewer = attempt._replace(values={name: x for name, x in attempt.values.items() if name != term})
            if any(EPS not in name for name in fewer.values) and (simpler := solve(fewer)) is not None:
                attempt, coefficients = fewer, simpler  # noqa: PLW2901
        if [*attempt.values] != ["u"]:  # else it is the inverse of the equation of the update
            return Equation(attempt, dict(zip(attempt.values, coefficients.T, strict=True)))
    return None


def same_equation(ours: Equation | None, theirs: Equation | None, tolerance: float = CLOSE) -> bool:
    """Return True if an equation is exact with the coefficients of another equation that has the same terms."""
    return (
        ours is not None
        and theirs is not None
        and ours.terms.same_as(theirs.terms)
        and holds(ours, theirs.coefficients, tolerance)
    )


def holds(equation: Equation, coefficients: Arrays, tolerance: float = CLOSE) -> bool:
    """Return True if an equation is exact with these coefficients, at the steps at which both are determined."""
    terms, own = equation
    if terms.form in ("max", "min"):
        return all(close(own[term], coefficients[term], LOOSE) for term in own)
    steps = min(len(terms.y), *(len(column) for column in coefficients.values()))
    y, (d, rounding) = terms.y[:steps], (np.broadcast_to(a, terms.y.shape)[:steps] for a in (terms.d, terms.rounding))
    ours, theirs = (np.stack([some[term][:steps] for term in own]) for some in (own, coefficients))
    undetermined = np.isinf(theirs).any(0) | (np.isinf(ours).any(0) & ~np.isfinite(theirs).all(0))
    values = np.nan_to_num(np.where(np.isnan(theirs), ours, theirs), posinf=0.0)
    parts = values[..., None] * np.stack([terms.values[term][:steps] for term in own])
    eps = np.abs(values[[EPS in term for term in own]]).sum(0)
    bound = rounding * (1 + eps[:, None] / np.where(d > 0, d, np.inf))
    with np.errstate(invalid="ignore"):
        exact = np.abs(parts.sum(0) - y) <= tolerance * np.maximum(np.abs(parts).sum(0), np.abs(y)) + 4 * bound
    return bool((exact.all(1) | undetermined).all())


def close(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    """Return True if coefficients are equal up to a relative difference, at the steps at which both are known."""
    steps = min(len(a), len(b))
    a, b = a[:steps], b[:steps]
    known = np.isfinite(a) & np.isfinite(b)
    return bool((np.abs(a - b)[known] <= tolerance * np.abs(b)[known]).all())


def _solve(attempt: Terms) -> np.ndarray | None:
    """Return the coefficients (steps, terms) if they reproduce y exactly at all steps, else None."""
    y, terms = attempt.y, np.stack(list(attempt.values.values()), axis=-1)
    rounding, d = (np.broadcast_to(array, y.shape) for array in (attempt.rounding, attempt.d))
    main = np.array([EPS not in term for term in attempt.values])
    solution = None
    for steps in (slice(PROBE, PROBE + 1), slice(None)):
        solution = _least_squares(y[steps], terms[steps], rounding[steps], d[steps], main)
        if solution is None:
            return None
    return solution


def _least_squares(
    y: np.ndarray, terms: np.ndarray, rounding: np.ndarray, d: np.ndarray, main: np.ndarray
) -> np.ndarray | None:
    """Solve y = terms · coefficients at each step by least squares; return None if an element is not exact.

    Elements are weighted by the sum of the sizes of their terms, so that each counts equally. At first this sum is
    estimated from the median ratio of each term to y, and equations with ε are solved for large D only.
    """
    ratios = np.abs(terms) / np.abs(y)[..., None]
    ratios = np.where(np.isfinite(ratios) & (ratios > 0), ratios, np.nan)
    typical = np.ones((len(y), 1, terms.shape[-1]))
    for i, k in zip(*np.nonzero(np.isfinite(ratios).any(1)), strict=True):
        typical[i, 0, k] = np.nanmedian(ratios[i, :, k])
    sizes = np.abs(terms) / typical
    size = np.where((sizes[..., main] > 0).any(-1), sizes[..., main].max(-1), sizes.max(-1))
    bound, used = rounding, np.ones_like(y) if main.all() else d >= np.median(d, axis=1, keepdims=True)
    for _ in range(5):
        scale = np.maximum(np.maximum(np.abs(y), size), np.maximum(bound / PRECISION, 1e-300))
        rows, wanted = np.nan_to_num(used[..., None] * terms / scale[..., None]), np.nan_to_num(used * y / scale)
        norms = np.sqrt((rows**2).sum(1))
        norms = np.where((norms > 0) & np.isfinite(norms), norms, 1.0)
        solution = (np.linalg.pinv(rows / norms[:, None], rcond=1e-14) @ wanted[..., None])[..., 0] / norms
        size = (np.abs(terms) * np.abs(solution)[:, None, :]).sum(-1)
        eps = np.abs(solution[:, None, ~main]).sum(-1)
        bound, used = rounding * (1 + eps / np.where(d > 0, d, np.inf)), np.ones_like(y)
    error = np.abs((terms * solution[:, None, :]).sum(-1) - y)
    exact = (error <= EXACT * np.maximum(size, np.abs(y)) + bound).all()
    # terms may be proportional to each other, as the first moment and the gradient at the first step, or too small
    spread = np.linalg.svd(rows / norms[:, None], compute_uv=False) if len(norms) else np.ones((0, 1))
    unseen = (np.abs(terms * solution[:, None, :]) <= UNSEEN * size[..., None]).all(1)
    singular = (spread.min(1) < SINGULAR * spread.max(1)) & ~(terms == 0).all(1).any(1)
    solution = np.where(singular[:, None], np.inf, np.where(unseen, np.nan, solution))
    return solution if exact else None


def _solve_limit(attempt: Terms) -> np.ndarray | None:
    """Return the factors (steps, 2) if y is the larger or smaller of two terms times factors, else None.

    The first factor is constant; the second one may change with the step.
    """
    (old, new), y = attempt.values.values(), attempt.y
    larger = np.maximum if attempt.form == "max" else np.minimum
    ratios = y / old
    for factor in dict.fromkeys((1.0, float(np.nanmedian(ratios[(old != 0) & (y != new)])))):
        changed = (np.abs(y - factor * old) > EXACT * np.abs(y)) & (new != 0)
        if not changed.any() or changed.all():
            continue
        shares = [
            np.median((row / other)[which]) for row, other, which in zip(y, new, changed, strict=True) if which.any()
        ]
        per_step = np.full(len(y), np.nan)
        per_step[changed.any(1)] = shares
        limited = larger(factor * old, np.where(np.isnan(per_step), 0.0, per_step)[:, None] * new)
        if (np.abs(limited - y) <= EXACT * np.abs(y)).all():
            return np.stack([np.full(len(y), factor), per_step], axis=1)
    return None
