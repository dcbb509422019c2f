"""Write equations with coefficients as text."""

import numpy as np

from nnjax.optcheck.reading.coefficients import Factor, factor_of, product, total
from nnjax.optcheck.reading.linear_equations import Equation, close
from nnjax.optcheck.reading.read_equations import UPDATE
from nnjax.optcheck.reading.terms import CLIP, EPS, INSIDE, OUTSIDE, OVER, PRODUCT, Outer

SMALL = 1e-5  # largest relative difference of coefficients that count as equal; rounding affects small ones
UNKNOWN = "?"


def equation_text(name: str, equation: Equation | None, betas: tuple[float, ...]) -> str:
    """Return the right side of an equation."""
    if equation is None:
        return UNKNOWN
    if equation.terms.outer is not None:
        return _outer_text(name, equation, equation.terms.outer, betas)
    factors = {label: factor_of(column, betas) for label, column in parts_of(equation).items()}
    factors = {"" if label == "1" else label: factor for label, factor in factors.items()}
    old = f"{UPDATE} " if name == UPDATE else ""
    form, denominator = equation.terms.form, equation.terms.denominator
    if form in ("max", "min"):
        return f"{form}({', '.join(product(factor, label) for label, factor in factors.items())})"
    eps = factors.pop(EPS, None)
    below = denominator if eps is None else f"({denominator} + {eps})"
    if (inside := factors.pop(INSIDE, None)) is not None:
        below = f"√({denominator.removeprefix('√').removeprefix('(').removesuffix(')')} + {inside})"
    if form:
        root = _root(equation, betas) + (f" / {_root_below(equation, betas)}" if denominator else "")
        return total([old.strip(), ("-" if form.startswith("-") else "") + root]) if old else root
    over = {label: factor for label, factor in factors.items() if label.endswith(OVER)}
    beside = [product(factor, label) for label, factor in factors.items() if label not in over]
    fraction = [f"{_numerator(over)} / {below}"] if over else []
    return total([old.strip(), *fraction, *beside] if old else [*beside, *fraction])


def _outer_text(name: str, equation: Equation, outer: Outer, betas: tuple[float, ...]) -> str:
    """Return the right side of an equation with a function of a sum, such as "θ - clip(0.01 b, ±0.1) - 0.001 θ"."""
    first = next(iter(equation.coefficients.values()))
    negative = name == UPDATE and np.nanmedian(np.where(np.isfinite(first), first, np.nan)) < 0
    if negative:  # the functions are odd
        columns = {label: x if label in (EPS, INSIDE) else -x for label, x in equation.coefficients.items()}
        equation = equation._replace(coefficients=columns)
    inner = equation_text("", equation._replace(terms=equation.terms._replace(outer=None)), betas)
    inner = inner[1:-1] if inner.startswith("(") and inner.count("(") == 1 and inner.endswith(")") else inner
    clip = outer.function == CLIP
    value = f"clip({inner}, ±{outer.scale:g})" if clip else product(Factor(outer.scale), f"{outer.function}({inner})")
    decay = [product(Factor(-outer.decay), UPDATE)] if outer.decay else []
    return total([*([UPDATE] if name == UPDATE else []), ("-" if negative else "") + value, *decay])


def parts_of(equation: Equation | None) -> dict[str, np.ndarray]:
    """Return the coefficients (steps,) of the terms and of ε, with (D + ε) cancelled in terms outside the fraction.

    If y (D + ε) = a m + w D θ + c θ, then y = (a m + (c - w ε) θ) / (D + ε) + w θ.
    """
    if equation is None:
        return {}
    columns = {label: np.where(np.isinf(column), np.nan, column) for label, column in equation.coefficients.items()}
    eps = -columns.pop(EPS) if EPS in columns else None
    columns.pop(OUTSIDE, None)
    for label in [label for label in columns if label.endswith(f" {EPS}")]:
        term = label.removesuffix(f" {EPS}")
        rest = columns.pop(label)
        with_eps = columns.get(term, 0.0 * rest) * (0.0 if eps is None else eps)
        if not close(rest, with_eps, SMALL):
            columns[term + OVER] = rest - with_eps
    columns |= {} if eps is None else {EPS: eps}
    return {label: column for label, column in columns.items() if np.nan_to_num(column).any()}


def _numerator(over: dict[str, Factor]) -> str:
    """Return the text of a sum of terms, with a common factor or sign before the bracket."""
    names, factors = [label.removesuffix(OVER) for label in over], list(over.values())
    if len(over) == 1:
        return product(factors[0], names[0])
    if len(set(factors)) == 1:
        return product(factors[0], f"({total(names)})")
    sign = -1.0 if factors[0].number < 0 else 1.0
    parts = [
        product(factor._replace(number=sign * factor.number), name) for factor, name in zip(factors, names, strict=True)
    ]
    return f"{'-' if sign < 0 else ''}({total(parts)})"


def _root(equation: Equation, betas: tuple[float, ...]) -> str:
    """Return the root of a sum of squares, such as "√(v + g²)", or "g √(s + 1e-06)" for g² s + 1e-06 g²."""
    squares = {label: column for label, column in parts_of(equation).items() if EPS not in label}
    first, *others = squares
    term = first.removesuffix("²")
    with np.errstate(invalid="ignore"):
        if not others and first.endswith("²"):
            return product(factor_of(np.sqrt(squares[first]), betas), term)
        if (both := [label for label in others if label.startswith(PRODUCT)]) and len(others) == 2:
            second = next(label for label in others if label not in both)
            a, b = np.sqrt(squares[first]), np.sqrt(squares[second]) * np.sign(squares[both[0]])
            terms = [product(factor_of(a, betas), term), product(factor_of(b, betas), second.removesuffix("²"))]
            return f"({total(terms)})"
        if others and all(label.startswith(f"{first} ") for label in others):
            array = others[0].removeprefix(first).strip()
            size = np.sqrt(squares[others[0]])
            if len(others) == 1:
                added = factor_of(squares[first] / squares[others[0]], betas)
                return f"{product(factor_of(size, betas), term)} √({array} + {added})"
            added = factor_of(np.sqrt(squares[first]) / size, betas)
            return f"{product(factor_of(size, betas), term)} (√{array} + {added})"
    return f"√({total([product(factor_of(column, betas), label) for label, column in squares.items()])})"


def _root_below(equation: Equation, betas: tuple[float, ...]) -> str:
    """Return the text of the root of D, with ε inside or outside."""
    d, parts = equation.terms.denominator, parts_of(equation)
    if OUTSIDE in equation.coefficients:
        return f"(√{d} + {factor_of(-equation.coefficients[OUTSIDE] / 2, betas)})"
    return f"√({d} + {factor_of(parts[EPS], betas)})" if EPS in parts else f"√{d}"


def multiple_text(ours: Equation | None, theirs: Equation | None, betas: tuple[float, ...]) -> str:
    """Describe terms of the update that are multiples of the reference's terms, or return ""."""
    a, b = parts_of(ours), parts_of(theirs)
    common = [
        label for label in a if label in b and label not in (EPS, INSIDE) and not close(a[label], b[label], SMALL)
    ]
    if (
        ours is None
        or theirs is None
        or ours.terms.denominator != theirs.terms.denominator
        or ours.terms.form
        or not common
    ):
        return ""
    ratios = [a[label] / b[label] for label in common]
    if not all(close(ratio, ratios[0], SMALL) for ratio in ratios):
        return ""
    names = ", ".join(label.removesuffix(OVER) for label in common)
    whole = (
        "the update"
        if a.keys() == b.keys() and len(common) + (EPS in a) + (INSIDE in a) == len(a)
        else f"its term in {names}"
    )
    return f"{whole} is {factor_of(ratios[0], betas)} times that of the reference"
