"""Find coefficients that depend on a whole leaf, such as the norm by which gradients are clipped or divided.

The coefficient of a term may be different at every step, so an equation is exact although its coefficients depend on
the gradients of a script. Here such a coefficient becomes a constant, or a function of t, times a formula of a norm,
which is the same on all scripts. The formula becomes part of the term: "g" becomes "min(1, 1/‖g‖) g".
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nnjax.optcheck.reading.coefficients import SAME, shapes_of
from nnjax.optcheck.reading.linear_equations import LOOSE, Equation, close
from nnjax.optcheck.reading.terms import EPS, OVER, Leaf, statistics

LEAST = 6  # smallest number of steps from which a formula is concluded
DIGITS = (1, 2, 3, 4, 5)  # numbers of digits of a bound or an ε that are tried
POWERS = (1, 2)
PRECISE = 1e-10  # formulas with a smaller relative error are equally good
WORSE = 10  # formulas with a larger multiple of the smallest error are wrong


class LeafFactor(NamedTuple):
    """A factor of a term that depends on the whole leaf: its text around the term, and its value at each step."""

    above: str
    below: str
    values: np.ndarray

    def text(self, term: str) -> str:
        """Return the text of the term times the factor."""
        name, over = term.removesuffix(OVER), OVER if term.endswith(OVER) else ""
        name = " ".join(part for part in (self.above, "" if name == "1" else name) if part) or "1"
        return name + (f" / {self.below}" if self.below else "") + over


def with_leaf_factors(
    equations: Sequence[Equation], leaves: Sequence[Leaf], betas: Sequence[float]
) -> Sequence[Equation]:
    """Return the equations of an array on several scripts, with factors that depend on the leaf in the terms.

    Equations are returned unchanged if they have different terms or the same coefficients, or if no formula is found.
    """
    first, *others = equations
    if (
        not others
        or first.terms.form in ("max", "min")
        or not all(first.terms.same_as(other.terms) for other in others)
    ):
        return equations
    for term in [*first.coefficients]:
        is_term = term in first.terms.values and EPS not in term
        columns = [equation.coefficients[term] for equation in equations]
        if is_term and not all(close(column, columns[0], LOOSE) for column in columns):
            factors = _factors(term, columns, leaves, betas)
            if factors is None:
                return equations
            equations = [
                _with_factor(equation, term, factor) for equation, factor in zip(equations, factors, strict=True)
            ]
    return equations


def _with_factor(equation: Equation, term: str, factor: LeafFactor) -> Equation:
    """Return the equation with a factor as part of a term, and of the same term times ε."""
    names = {term: factor.text(term), f"{term} {EPS}": f"{factor.text(term)} {EPS}"}
    values = {
        names.get(name, name): x * factor.values[:, None] if name in names else x
        for name, x in equation.terms.values.items()
    }
    with np.errstate(all="ignore"):
        coefficients = {
            names.get(name, name): column / factor.values if name in names else column
            for name, column in equation.coefficients.items()
        }
    return Equation(equation.terms._replace(values=values), coefficients)


def _factors(
    term: str, columns: Sequence[np.ndarray], leaves: Sequence[Leaf], betas: Sequence[float]
) -> list[LeafFactor] | None:
    """Return the factor of a term on each script, if the coefficients of all scripts have the same formula."""
    lengths = [len(column) for column in columns]
    values = np.concatenate(columns)
    t = np.concatenate([np.arange(1, length + 1) for length in lengths])
    known = np.isfinite(values) & (values != 0)
    if known.sum() < LEAST:
        return None
    tables = [statistics(leaf) for leaf in leaves]
    common = [name for name in tables[0] if all(name in table for table in tables)]
    sizes = {name: np.concatenate([table[name] for table in tables]) for name in common}
    sizes = {name: size for name, size in sizes.items() if np.isfinite(size).all() and (size[known] != 0).all()}
    found: list[tuple[float, int, int, LeafFactor]] = []  # error, digits, order, formula
    for shape, _, _ in shapes_of(t, betas):
        for name, size in sizes.items():
            for factor in _formulas(name, size, np.where(known, values / shape, np.nan), "²" in term):
                ratio = values[known] / shape[known] / factor.values[known]
                number = float(np.median(ratio))
                if (error := np.ptp(ratio) / abs(number)) <= SAME:
                    digits = _digits(number) + _digits(factor.above + factor.below)
                    found.append((error, digits, len(found), factor))
        if found:
            break
    if not found:
        return None
    ends = np.cumsum(lengths)
    precise = max(PRECISE, WORSE * min(error for error, *_ in found))
    _, _, factor = min((digits, order, factor) for error, digits, order, factor in found if error <= precise)
    return [factor._replace(values=part) for part in np.split(factor.values, ends[:-1])]


def _formulas(name: str, size: np.ndarray, values: np.ndarray, squared: bool) -> Iterator[LeafFactor]:
    """Yield formulas of a statistic that values may be proportional to, the plainest first.

    Args:
      name: the text of the statistic.
      size: its value at each step.
      values: the values; NaN where they are unknown.
      squared: whether the term is a square, so that its factor probably is one.
    """
    yield LeafFactor(name, "", size)
    yield LeafFactor("", name, 1 / size)
    yield LeafFactor(f"{name}²", "", size**2)
    yield LeafFactor("", f"{name}²", 1 / size**2)
    if (size <= 0).any():
        return
    known = np.isfinite(values)
    largest = np.nanmax(np.abs(values))
    shares = np.abs(values) / largest
    clipped = known & (shares < 1 - SAME)
    for power, outer in sorted(itertools.product(POWERS, POWERS), key=lambda pair: (pair[1] == POWERS[-1]) != squared):
        sizes, square, squared_text = size**power, "²" * (power - 1), "²" * (outer - 1)
        if LEAST <= clipped.sum() < known.sum():
            bound = float(np.median(shares[clipped] ** (1 / outer) * sizes[clipped]))
            text = f"min(1, {bound:.5g}/{name}{square}){squared_text}"
            yield LeafFactor(text, "", np.minimum(1, float(f"{bound:.5g}") / sizes) ** outer)
        # 1 / values = (size + ε) / number, so ε follows from two steps with different sizes
        roots = np.where(known, np.abs(values) ** (1 / outer), np.nan)
        small, large = np.nanargmin(np.where(known, sizes, np.nan)), np.nanargmax(np.where(known, sizes, np.nan))
        ratio = roots[small] / roots[large]
        eps = (sizes[large] - ratio * sizes[small]) / (ratio - 1) if ratio != 1 else 0.0
        if 0 < eps < np.inf:
            for digits in DIGITS:
                text = f"({name}{square} + {eps:.{digits}g}){squared_text}"
                yield LeafFactor("", text, 1 / (sizes + float(f"{eps:.{digits}g}")) ** outer)


def _digits(number: float | str) -> int:
    """Return the number of significant digits of a number, or of all digits in a text."""
    text = number if isinstance(number, str) else f"{number:.6g}".partition("e")[0].replace(".", "").strip("-0")
    return sum(character.isdigit() for character in text)
