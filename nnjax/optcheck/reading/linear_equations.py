"""Solve equations that are linear in their coefficients, at each step, and check that every element is exact."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nnjax.optcheck.reading.eps_inside import with_eps_inside
from nnjax.optcheck.reading.least_squares import EXACT, best_coefficients, exact_coefficients
from nnjax.optcheck.reading.probes import possible
from nnjax.optcheck.reading.terms import EPS, INSIDE, Arrays, Terms

CLOSE = 3e-9  # largest error of an equation with the exact coefficients of another equation, relative to its terms
LOOSE = 1e-6  # the same with coefficients that were read, and the largest relative difference of equal coefficients


ROUNDS = 3  # of the solution with one ε
DIGITS = (1, 2)  # numbers of digits of a constant ε
MOST_FAILURES = 300  # number of attempts that are solved at all steps in vain


class Equation(NamedTuple):
    """An equation with coefficients."""

    terms: Terms
    coefficients: Arrays
    """For each term (steps,): ∞ at steps at which no coefficient is determined, NaN if the term is too small."""


def first_exact(attempts: Iterator[Terms]) -> Equation | None:
    """Return the equation of the first attempt that is exact at all steps, without unnecessary terms.

    If many attempts fit one step but not all, as with few finite elements, the equation counts as unreadable.
    """
    failures = 0
    for attempt in possible(attempts):
        if (equation := _solve(attempt)) is None:
            failures += 1
            if failures == MOST_FAILURES:
                return None
            continue
        for term in [term for term in attempt.values if term != EPS and attempt.form not in ("max", "min")]:
            fewer = {name: x for name, x in equation.terms.values.items() if name != term}
            if any(EPS not in name for name in fewer):
                equation = _solve(equation.terms._replace(values=fewer)) or equation
        if [*equation.terms.values] != ["u"]:  # else it is the inverse of the equation of the update
            return equation
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
    if INSIDE in own and INSIDE in coefficients:
        steps = min(len(own[INSIDE]), len(coefficients[INSIDE]))
        eps = own[INSIDE].copy()
        eps[:steps] = np.where(np.isfinite(coefficients[INSIDE][:steps]), coefficients[INSIDE][:steps], eps[:steps])
        terms = terms.with_eps_inside(np.where(np.isfinite(eps), eps, 0.0))
    if terms.form in ("max", "min"):
        return all(close(own[term], coefficients[term], LOOSE) for term in own)
    own = {term: column for term, column in own.items() if term != INSIDE}
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


def _solve(attempt: Terms) -> Equation | None:
    """Return the equation if an attempt reproduces y exactly at all steps, else None."""
    if attempt.form in ("max", "min"):
        solution = _solve_limit(attempt)
        return None if solution is None else Equation(attempt, dict(zip(attempt.values, solution.T, strict=True)))
    if attempt.square is not None:
        return _solve_with_eps_inside(attempt)
    if (solution := exact_coefficients(attempt)) is None:
        return _solve_with_plain_eps(attempt)
    coefficients = dict(zip(attempt.values, solution.T, strict=True))
    crossed = {term: f"{term} {EPS}" for term in coefficients if f"{term} {EPS}" in coefficients}
    return Equation(attempt, _with_one_eps(attempt, coefficients, crossed) if crossed else coefficients)


def _solve_with_plain_eps(attempt: Terms) -> Equation | None:
    """Return the equation with a constant ε of few digits, if ε multiplies several terms, else None.

    Then fewer coefficients are solved for, which is more precise.
    """
    if not any(term.endswith(f" {EPS}") for term in attempt.values):
        return None
    place = [*attempt.values].index(EPS)
    middle = -float(np.median(best_coefficients(attempt, np.ones_like(attempt.y))[:, place]))
    if not 0 < middle < np.inf:
        return None
    equation = Equation(attempt, {**attempt.values})
    constants = dict.fromkeys(float(f"{middle:.{n}g}") for n in DIGITS)
    return next((some for eps in constants if (some := with_eps(equation, eps)) is not None), None)


def _solve_with_eps_inside(attempt: Terms) -> Equation | None:
    """Return the equation with its exact coefficients and ε inside the root, else None."""
    if (inside := with_eps_inside(attempt)) is None or (solution := exact_coefficients(inside[0])) is None:
        return None
    solution = np.where(np.isnan(inside[1])[:, None], np.inf, solution)
    return Equation(inside[0], dict(zip(attempt.values, solution.T, strict=True)) | {INSIDE: inside[1]})


def _with_one_eps(attempt: Terms, coefficients: Arrays, crossed: dict[str, str]) -> Arrays:
    """Return coefficients with one ε for y and all undivided terms, if they are exact.

    Then y (D + ε) = a x + b z (D + ε) is y D = a x + b z D - ε (y - b z), which has fewer coefficients.
    """
    for _ in range(ROUNDS):
        rest = sum(
            np.nan_to_num(coefficients[term], posinf=0.0)[:, None] * attempt.values[crossed[term]] for term in crossed
        )
        values = {term: x for term, x in attempt.values.items() if term not in crossed.values()}
        values[EPS] = attempt.values[EPS] - rest
        if (solution := exact_coefficients(attempt._replace(values=values))) is None:
            break
        tied = dict(zip(values, solution.T, strict=True))
        eps = -tied[EPS]
        coefficients = tied | {crossed[term]: tied[term] * eps for term in crossed}
        coefficients = {term: coefficients[term] for term in attempt.values}
    return coefficients


def with_eps(equation: Equation, eps: float) -> Equation | None:
    """Return the equation with a constant ε and the coefficients that fit it, or None if it is not exact."""
    terms, own = equation
    crossed = {term: f"{term} {EPS}" for term in own if f"{term} {EPS}" in own}
    values = {
        term: x + eps * terms.values[crossed[term]] if term in crossed else x
        for term, x in terms.values.items()
        if EPS not in term
    }
    fixed = terms._replace(y=terms.y + eps * terms.values[EPS], values=values)
    if (solution := exact_coefficients(fixed)) is None:
        return None
    coefficients = dict(zip(values, solution.T, strict=True)) | {EPS: np.full(len(terms.y), -eps)}
    coefficients |= {crossed[term]: coefficients[term] * eps for term in crossed}
    return equation._replace(coefficients={term: coefficients[term] for term in own})


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
