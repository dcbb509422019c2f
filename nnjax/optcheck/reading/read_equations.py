"""Read the equations of a leaf from the arrays that an optimizer stores for it, without a list of known rules.

An equation states that a stored array or the update, times a denominator D, is a sum of terms with one coefficient each
per step. Sets of terms are tried, smallest first, until one reproduces all elements. With D = √v and the update u as a
term, u √v = a m - ε u is the step a m / (√v + ε).
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from nnjax.optcheck.reading.leaves import decayed_gradient
from nnjax.optcheck.reading.linear_equations import LOOSE, Equation, first_exact, holds, with_eps
from nnjax.optcheck.reading.saturation import inner_leaves, with_outer
from nnjax.optcheck.reading.terms import (
    EPS,
    Arrays,
    Leaf,
    Terms,
    attempts_for_array,
    attempts_for_update,
    own_terms,
    subsets,
)

NOISE = 0.05  # largest relative range of the ε of all steps if it is certain that there is an ε
FEW = 6  # smallest number of such steps
DIGITS = (1, 2, 4)  # numbers of digits of a constant that is tried
UPDATE = "θ"  # the name of the equation of the update
Equations = Mapping[str, Equation | None]


def read_equations(
    leaf: Leaf, gradients: Arrays, mixtures: Arrays, likely: Mapping[str, Equation | None] = MappingProxyType({})
) -> dict[str, Equation | None]:
    """Return the equation of each stored array and of the update; None for an equation that could not be read.

    Args:
      leaf: the arrays.
      gradients: the gradient "g" and what may be used in its place, such as the gradient after weight decay; the first
        one is tried alone at first.
      mixtures: further terms, such as Lion's mixture of the gradient and the first moment.
      likely: equations of the reference, whose terms are tried first.
    """

    def read(name: str, attempts: Callable[[Terms | None], Iterator[Terms]]) -> Equation | None:
        known = likely.get(name)
        terms = None if known is None else known.terms
        same = () if terms is None else (some for some in attempts(terms) if some.same_as(terms))
        return first_exact(itertools.chain(same, attempts(None)))

    def of_array(name: str, some: Arrays, only: Terms | None) -> Iterator[Terms]:
        return itertools.chain.from_iterable(
            attempts_for_array(name, leaf, {text: g}, mixtures, only) for text, g in some.items()
        )

    def of_function(name: str, passes: Sequence[Arrays]) -> Equation | None:
        for outer, inner in inner_leaves(leaf, None if name == UPDATE else name):
            *inputs, mixed = (
                {text: np.where(inner.params == 0, 0.0, x) for text, x in some.items()} for some in (*passes, mixtures)
            )
            if name == UPDATE:
                attempts = attempts_for_update(inner, inputs, mixed)
            else:
                attempts = attempts_for_array(name, inner, {"g": inner.grads}, {})
            if (equation := first_exact(attempts)) is not None:
                return with_outer(equation, outer)
        return None

    with np.errstate(all="ignore"):
        plain = dict([next(iter(gradients.items()))])
        equations: dict[str, Equation | None] = {}
        for name in leaf.after:
            equations[name] = read(name, functools.partial(of_array, name, plain))
            leaf = _with_rate(leaf, name, equations[name])
        decays = {decay for equation in equations.values() if (decay := _weight_decay(equation))}
        others = {decayed_gradient(w): leaf.grads + w * leaf.params for w in decays} | gradients
        for name in [name for name, equation in equations.items() if equation is None]:
            equations[name] = read(name, functools.partial(of_array, name, others)) or of_function(name, [])
            leaf = _with_rate(leaf, name, equations[name])
        words = {word for equation in equations.values() if equation for word in equation.coefficients}
        used = {text: g for text, g in others.items() if not leaf.after or text == "g" or {text, f"{text}²"} & words}
        passes = [plain, *([used] if len(used) > 1 else [])]
        update = read(UPDATE, lambda only: attempts_for_update(leaf, passes, mixtures, only))
        return equations | {UPDATE: update or of_function(UPDATE, passes)}


def _with_rate(leaf: Leaf, name: str, equation: Equation | None) -> Leaf:
    """Return the leaf with the constant decay rate of an array that is an average."""
    column = equation.coefficients.get(name, np.zeros(0)) if equation else np.zeros(0)
    known = column[np.isfinite(column)]
    rate = float(f"{np.median(known):.4g}") if known.size else 0.0
    constant = (np.abs(known - rate) <= LOOSE).sum() > known.size / 2  # rounding affects steps with large gradients
    return leaf._replace(rates=tuple(dict.fromkeys((*leaf.rates, rate)))) if constant and 0 < rate < 1 else leaf


def _is_constant(column: np.ndarray) -> bool:
    """Return True if most coefficients are equal; rounding affects those of steps with large gradients."""
    known = column[np.isfinite(column)]
    middle = float(np.median(known)) if known.size else 0.0
    return bool((np.abs(known - middle) <= LOOSE * max(1.0, abs(middle))).sum() > known.size / 2)


def _weight_decay(equation: Equation | None) -> float:
    """Return the weight decay w of an array that averages the gradient as c (g + w θ), or 0."""
    if equation is None or not {"g", "θ"} <= equation.coefficients.keys():
        return 0.0
    with np.errstate(all="ignore"):
        ratios = equation.coefficients["θ"] / equation.coefficients["g"]
    ratios = ratios[np.isfinite(ratios)]
    constant = ratios.size and np.ptp(ratios) <= LOOSE * np.abs(ratios).max()
    return float(f"{np.median(ratios):.4g}") if constant else 0.0


def settled(read: Equations, expected: Equations) -> Equations:
    """Replace coefficients by likely values if the equations still hold, because small terms are uncertain."""
    settled = dict(read)
    for name, equation in read.items():
        if equation is not None and equation.terms.form not in ("max", "min"):
            equation = _with_zeros(equation)  # noqa: PLW2901
            for term in equation.coefficients:
                known = expected.get(name)
                equation = _with_likely(equation, term, None if known is None else known.coefficients.get(term))  # noqa: PLW2901
            settled[name] = equation
    return settled


def _with_zeros(equation: Equation) -> Equation:
    """Return the equation with later zeros for terms that are seen only at the first step, if most steps show them."""
    columns = equation.coefficients
    size = sum(
        np.abs(np.nan_to_num(column, posinf=0.0)[:, None] * equation.terms.values[term])
        for term, column in columns.items()
        if term in equation.terms.values
    )
    for term, column in columns.items():
        later = np.abs(np.nan_to_num(column[1:], posinf=0.0))
        if len(column) < FEW or EPS in term or not np.isfinite(column[0]) or (later > LOOSE * np.abs(column[0])).any():
            continue
        expected = np.abs(column[0] * equation.terms.values[term][1:])
        seen = (expected > LOOSE * size[1:]).any(1)
        zeros = columns | {term: np.concatenate([column[:1], np.zeros_like(later)])}
        if seen.sum() >= max(FEW, len(seen) / 2) and holds(equation, zeros):
            columns = zeros
    return equation._replace(coefficients=columns)


def _with_likely(equation: Equation, term: str, reference: np.ndarray | None) -> Equation:
    """Replace the coefficient of a term by the reference's, by 0 for ε, or by a constant, if the equation holds."""
    column = equation.coefficients[term]
    known = column[np.isfinite(column)]
    middle = float(np.median(known)) if known.size else 0.0
    certain = term == EPS and known.size >= FEW and middle < 0 and np.ptp(known) <= NOISE * -middle
    missing = np.zeros_like(column) if term == EPS else column
    values = [] if reference is None else [np.where(np.isnan(reference), missing[: len(reference)], reference)]
    values += [np.zeros_like(column)] if term == EPS else []
    values = [value for value in values if not certain or (np.abs(value - middle) <= NOISE * -middle).all()]
    digits = DIGITS if EPS in term else DIGITS[-1:]
    values += [np.full_like(column, float(f"{middle:.{n}g}")) for n in digits if known.size]
    with np.errstate(all="ignore"):
        attempts = (equation._replace(coefficients=equation.coefficients | {term: value}) for value in values)
        simple = next((some for some in attempts if holds(equation, some.coefficients)), None)
        if simple is None and term == EPS and not equation.terms.form and len(known):
            constants = (float(f"{-middle:.{n}g}") for n in DIGITS)
            simple = next((some for eps in constants if (some := with_eps(equation, eps)) is not None), None)
    return simple or equation


def without_multiples(leaf: Leaf, gradients: Arrays) -> Leaf:
    """Return the leaf without arrays that are multiples of another array at each step, such as m / (1 - β₁ᵗ).

    Of several such arrays, the one that is computed from its old value with constant coefficients is kept.
    """
    kept: list[str] = []
    for name, values in leaf.after.items():
        twin = next((other for other in kept if _is_multiple(values, leaf.after[other])), None)
        if twin is None:
            kept.append(name)
        elif not _is_recurrence(twin, leaf, gradients) and _is_recurrence(name, leaf, gradients):
            kept[kept.index(twin)] = name
    return leaf._replace(
        before={name: leaf.before[name] for name in kept}, after={name: leaf.after[name] for name in kept}
    )


def _is_multiple(values: np.ndarray, others: np.ndarray) -> bool:
    """Return True if each row is a multiple of the row of the other array."""
    largest = np.abs(others).argmax(1)[:, None]
    with np.errstate(all="ignore"):
        factors = np.take_along_axis(values, largest, 1) / np.take_along_axis(others, largest, 1)
        return bool((np.abs(values - factors * others) <= LOOSE * np.abs(values)).all())


def _is_recurrence(name: str, leaf: Leaf, gradients: Arrays) -> bool:
    """Return True if an array is computed from its old value with constant coefficients, after the first step."""
    equation = _own_equation(name, leaf, gradients)
    if equation is None or name not in equation.coefficients:
        return False
    columns = [column[np.isfinite(column)] for column in equation.coefficients.values()]
    return all(np.ptp(column) <= LOOSE * np.abs(column).max() for column in columns if column.size)


def _own_equation(name: str, leaf: Leaf, gradients: Arrays) -> Equation | None:
    """Return the equation of an array after the first step, if it contains no other array."""
    with np.errstate(all="ignore"):
        return first_exact(
            Terms(leaf.after[name][1:], {term: values[1:] for term, values in chosen.items()})
            for text, g in gradients.items()
            for chosen in (
                *subsets(own_terms(name, leaf, text, g)),
                {name: leaf.before[name], **_with_decay(leaf, text, g)},
            )
            if name in chosen
        )


def _with_decay(leaf: Leaf, text: str, g: np.ndarray) -> Arrays:
    """Return the terms of the square of the gradient after weight decay."""
    return {f"{text}²": g**2, f"{text} θ": g * leaf.params, "θ²": leaf.params**2}


def with_initial_values(leaf: Leaf, gradients: Arrays) -> Leaf:
    """Return the leaf with the initial values of arrays that the optimizer creates at the first step."""
    before = dict(leaf.before)
    for name, values in leaf.before.items():
        start = 0.0 if values[0].any() else _initial_value(name, leaf, gradients)
        before[name] = np.concatenate([np.full((1, values.shape[1]), start), values[1:]]) if start else values
    return leaf._replace(before=before)


def _initial_value(name: str, leaf: Leaf, gradients: Arrays) -> float:
    """Return the initial value that the equation of later steps implies for an array; 0 if it is not one number."""
    equation = _own_equation(name, leaf, gradients)
    if equation is None:
        return 0.0
    terms = {
        term: x
        for text, g in gradients.items()
        for term, x in (own_terms(name, leaf, text, g) | _with_decay(leaf, text, g)).items()
    }
    constants = {term: float(f"{np.nanmedian(column):.6g}") for term, column in equation.coefficients.items()}
    if not all(_is_constant(column) for column in equation.coefficients.values()):
        return 0.0
    if not constants.get(name):
        return 0.0
    inputs = sum(c * terms[term][0] for term, c in constants.items() if term != name)
    values = (leaf.after[name][0] - inputs) / constants[name]
    return float(f"{np.median(values):.6g}") if np.ptp(values) <= LOOSE * np.abs(values).max() else 0.0
