"""Read the equations of an optimizer from the arrays that it stores, without a list of known rules.

An equation states that a stored array or the update, times a denominator D, is a sum of terms with one coefficient each
per step. Sets of terms are tried, smallest first, until one reproduces all elements of a leaf. With D = √v and the
update u as a term, u √v = a m - ε u is the step a m / (√v + ε).
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

EXACT = 1e-8  # largest error of an equation relative to the sum of the sizes of its terms
LOOSE = 1e-6  # the same for the coefficients of another equation
PRECISION = 1e-12  # relative error of a term; elements with more rounding are weighted less
UNSEEN = 1e-7  # largest share of a term at a step at which its coefficient is not determined
SINGULAR = 1e-10  # smallest ratio of singular values at which coefficients are determined
PROBE = 8  # the step at which a set of terms is tried first
MOST = 3  # largest number of terms, without the ε term
EPS = "ε"  # the term that adds ε to the denominator
OVER = " over D"  # end of a term of the update that is divided by D; the others are added after the division
SQUARED = "squared"
UPDATE = "θ"  # the name of the equation of the update

Arrays = dict[str, np.ndarray]


class Leaf(NamedTuple):
    """What is known of a leaf, as arrays (steps, elements)."""

    grads: np.ndarray
    params: np.ndarray
    updates: np.ndarray
    rounding: np.ndarray  # how much rounding may change each update
    before: Arrays  # stored arrays before each step
    after: Arrays  # the same arrays after each step


class Terms(NamedTuple):
    """The terms of an equation y D = Σ coefficient · term, as arrays (steps, elements)."""

    y: np.ndarray  # y D
    terms: Arrays
    denominator: str = ""  # D without ε, such as "√v"; "" for 1
    d: np.ndarray | float = 1.0  # D
    rounding: np.ndarray | float = 0.0  # how much rounding may change y D
    form: str = (
        ""  # "max" or "min" instead of a sum; SQUARED if y², D and the terms are squares; with "-" if y is -√(…)
    )

    def same_as(self, other: "Terms") -> bool:
        """Return True if two equations have the same terms."""
        return (self.denominator, self.form, {*self.terms}) == (other.denominator, other.form, {*other.terms})


class Equation(NamedTuple):
    """An equation with coefficients."""

    terms: Terms
    coefficients: Arrays
    """For each term (steps,): ∞ at steps at which no coefficient is determined, NaN if the term is too small."""


def read_equations(
    leaf: Leaf, gradients: Arrays, mixtures: Arrays, likely: Mapping[str, Equation | None] = MappingProxyType({})
) -> dict[str, Equation | None]:
    """Return the equation of each stored array and of the update; None for an equation that could not be read.

    Args:
      leaf: the arrays.
      gradients: the gradient "g" and what may be used in its place, such as the gradient after weight decay.
      mixtures: further terms, such as Lion's mixture of the gradient and the first moment.
      likely: equations whose terms are tried first, those of the reference.
    """

    def read(name: str, attempts: Callable[[], Iterator[Terms]]) -> Equation | None:
        known = likely.get(name)
        same = (some for some in attempts() if some.same_as(known.terms)) if known is not None else iter(())
        return _first_exact(itertools.chain(same, attempts()))

    def of_array(name: str) -> Iterator[Terms]:
        return itertools.chain.from_iterable(
            _attempts_for_array(name, leaf, {text: g}, mixtures) for text, g in gradients.items()
        )

    with np.errstate(all="ignore"):
        equations = {name: read(name, functools.partial(of_array, name)) for name in leaf.after}
        words = {word for equation in equations.values() if equation for word in equation.coefficients}
        used = {text: g for text, g in gradients.items() if not leaf.after or text == "g" or {text, f"{text}²"} & words}
        passes = [{"g": leaf.grads}, *([used] if len(used) > 1 else [])]
        return equations | {UPDATE: read(UPDATE, lambda: _attempts_for_updates(leaf, passes, mixtures))}


def _attempts_for_updates(leaf: Leaf, passes: Sequence[Arrays], mixtures: Arrays) -> Iterator[Terms]:
    return itertools.chain.from_iterable(_attempts_for_update(leaf, gradients, mixtures) for gradients in passes)


def _attempts_for_array(name: str, leaf: Leaf, gradient: Arrays, mixtures: Arrays) -> Iterator[Terms]:
    """Yield attempts for the new value of a stored array, with fewer terms if the gradient is not "g"."""
    y, old = leaf.after[name], leaf.before[name]
    [(text, g)] = gradient.items()
    others = {other: values for other, values in leaf.after.items() if other != name}
    own = _own_terms(name, leaf, text, g)
    rare: Arrays = {}
    if text == "g":
        rare = {f"sign({term})": np.sign(values) for term, values in (mixtures | others).items()}
        rare |= {f"√{name}": np.sqrt(old)} | {f"{other}_old": leaf.before[other] for other in others}
        rare |= {f"{other}²": new**2 for other, new in others.items()}
    for other, new in others.items():
        rare |= {f"({text} - {other})²": (g - new) ** 2, f"({text} + {other})²": (g + new) ** 2}
        rare |= {f"{text} {other}": g * new, f"({text} - {other}_old)²": (g - leaf.before[other]) ** 2}
    for chosen in _subsets(own):
        yield Terms(y, chosen)
    for chosen in _subsets({**own, **others}, rare):
        if not chosen.keys() <= own.keys():
            yield Terms(y, chosen)
    for term, values in rare.items():
        yield Terms(y, {name: old, term: values, "1": own["1"]})
    inputs = {term: own[term] for term in (text, f"{text}²", f"|{text}|")} | others | mixtures
    for form, (term, values) in itertools.product(("max", "min"), inputs.items()):
        yield Terms(y, {name: old, term: values}, form=form)
    for kept in ({name: old}, {f"{name}²": old**2}):
        yield Terms(y**2, {**kept, f"{text}²": g**2}, form=SQUARED)
    for (denominator, d), (term, x) in itertools.product(_denominators(leaf, name), {text: g, **others}.items()):
        if term not in names_in(denominator):
            fraction = {name: old * d, f"{term}{OVER}": x, EPS: y, f"{name} {EPS}": old}
            yield Terms(y * d, fraction, denominator, d)
    u, rounding = leaf.updates, leaf.rounding
    of_square = (2 * np.abs(u) + rounding) * rounding
    for term, values, bound in (("u", u, rounding), ("|u|", np.abs(u), rounding), ("u²", u**2, of_square)):
        yield Terms(y, {name: old, term: values}, rounding=bound)
        yield Terms(y, {name: old, text: g, term: values}, rounding=bound)


def _own_terms(name: str, leaf: Leaf, text: str, g: np.ndarray) -> Arrays:
    """Return the terms of an array that do not contain other arrays."""
    own = {name: leaf.before[name], text: g, f"{text}²": g**2, f"|{text}|": np.abs(g), "θ": leaf.params}
    return own | {"1": np.ones_like(g)} | ({"sign(g)": np.sign(g), "g³": g**3} if text == "g" else {})


def initial_value(name: str, leaf: Leaf, gradients: Arrays) -> float:
    """Return the initial value that the equation of later steps implies for an array; 0 if it is not one number."""
    for text, g in gradients.items():
        terms = _own_terms(name, leaf, text, g)
        with np.errstate(all="ignore"):
            later = _first_exact(
                Terms(leaf.after[name][1:], {term: values[1:] for term, values in chosen.items()})
                for chosen in _subsets(terms)
                if name in chosen
            )
            if later is None:
                continue
            constants = {term: float(f"{np.nanmedian(column):.6g}") for term, column in later.coefficients.items()}
            if constants.get(name):
                inputs = sum(c * terms[term][0] for term, c in constants.items() if term != name)
                values = (leaf.after[name][0] - inputs) / constants[name]
                if np.ptp(values) <= LOOSE * np.abs(values).max():
                    return float(f"{np.median(values):.6g}")
    return 0.0


def _attempts_for_update(leaf: Leaf, gradients: Arrays, mixtures: Arrays) -> Iterator[Terms]:
    """Yield attempts for the update."""
    p, u = leaf.params, leaf.updates
    constants = {"θ": p, "1": np.ones_like(p)}
    old = {f"{name}_old": values for name, values in leaf.before.items()}
    numerators = {**leaf.after, **gradients, **old, **mixtures}
    signs = {f"sign({name})": np.sign(values) for name, values in (leaf.after | gradients | mixtures).items()}
    for chosen in _subsets({**numerators, **signs, **constants}):
        yield Terms(u, chosen, rounding=leaf.rounding)
    alone = {**constants, **numerators}
    for size, (denominator, d) in itertools.product(range(1, MOST + 1), list(_denominators(leaf))):
        over = {f"{name}{OVER}": values for name, values in numerators.items() if name not in names_in(denominator)}
        beside = {name: alone[name] * d for name in (alone if size < MOST else constants)}
        for chosen in _subsets(over | beside, sizes=(size,)):
            if over.keys() & chosen.keys():
                # (√v + ε) w θ = w √v θ + w ε θ
                with_eps = {f"{term} {EPS}": alone[term] for term in beside if term in chosen}
                with_eps = {term: x for term, x in with_eps.items() if term.replace(f" {EPS}", OVER) not in chosen}
                yield Terms(u * d, chosen | with_eps | {EPS: u}, denominator, d, leaf.rounding * d)
    yield from _attempts_with_root(leaf, numerators)


def _attempts_with_root(leaf: Leaf, numerators: Arrays) -> Iterator[Terms]:
    """Yield attempts with ε inside the root, a m / √(v + ε), as u² (v + ε) = a² m²; also with √(s + ε) m for m."""
    u, rounding = leaf.updates, leaf.rounding
    arrays = {f"{name}_old": values for name, values in leaf.before.items()} | leaf.after
    for (denominator, d), (term, x) in itertools.product(_denominators(leaf), numerators.items()):
        signs = np.unique(np.sign(u * x)[(np.abs(u) > 4 * rounding) & (x != 0)])
        if denominator.startswith("√") or len(signs) != 1:
            continue
        form, bound = ("-" if signs[0] < 0 else "") + SQUARED, (2 * np.abs(u) + rounding) * rounding * d
        yield Terms(u**2 * d, {f"{term}²": x**2, EPS: u**2}, denominator, d, bound, form)
        for factor, s in arrays.items():
            if not names_in(factor) & names_in(denominator) and (s >= 0).all():
                terms = {f"{term}²": x**2, f"{term}² {factor}": x**2 * s, EPS: u**2}
                yield Terms(u**2 * d, terms, denominator, d, bound, form)


def _subsets(terms: Arrays, rare: Arrays | None = None, sizes: Sequence[int] = range(1, MOST + 1)) -> Iterator[Arrays]:
    """Yield sets of these sizes; at most two terms if they contain rare terms."""
    every = terms | (rare or {})
    for size in sizes:
        for chosen in itertools.combinations(every if size < MOST else terms, size):
            yield {term: every[term] for term in chosen}


def names_in(expression: str) -> set[str]:
    """Return the names of the arrays in an expression."""
    for mark in "√()²|":
        expression = expression.replace(mark, " ")
    return {word.removesuffix("_old") for word in expression.replace("sign", " ").split()}


def _denominators(leaf: Leaf, without: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield the stored arrays that are never negative, and their roots, with their names."""
    arrays = {**leaf.after, **{f"{name}_old": values for name, values in leaf.before.items()}}
    for name, values in arrays.items():
        if name.removesuffix("_old") != without and (values >= 0).all() and (values > 0).any():
            yield f"√{name}", np.sqrt(values)
            yield name, values
            for other, mean in leaf.after.items():
                if (mean < 0).any() and (values >= mean**2).all():
                    yield f"√({name} - {other}²)", np.sqrt(values - mean**2)


def _first_exact(attempts: Iterator[Terms]) -> Equation | None:
    """Return the equation of the first attempt that is exact at all steps, without unnecessary terms."""
    for attempt in attempts:
        solve = _solve_limit if attempt.form in ("max", "min") else _solve
        if (coefficients := solve(attempt)) is None:
            continue
        for term in [term for term in attempt.terms if term != EPS and solve is _solve]:
            fewer = attempt._replace(terms={name: x for name, x in attempt.terms.items() if name != term})
            if any(EPS not in name for name in fewer.terms) and (simpler := solve(fewer)) is not None:
                attempt, coefficients = fewer, simpler  # noqa: PLW2901
        if [*attempt.terms] != ["u"]:  # else it is the inverse of the equation of the update
            return Equation(attempt, dict(zip(attempt.terms, coefficients.T, strict=True)))
    return None


def holds(equation: Equation, coefficients: Arrays) -> bool:
    """Return True if an equation is exact with these coefficients, at the steps at which both are determined."""
    terms, own = equation
    if terms.form in ("max", "min"):
        return all(_close(own[term], coefficients[term]) for term in own)
    steps = min(len(terms.y), *(len(column) for column in coefficients.values()))
    y, (d, rounding) = terms.y[:steps], (np.broadcast_to(a, terms.y.shape)[:steps] for a in (terms.d, terms.rounding))
    ours, theirs = (np.stack([some[term][:steps] for term in own]) for some in (own, coefficients))
    undetermined = np.isinf(theirs).any(0) | (np.isinf(ours).any(0) & ~np.isfinite(theirs).all(0))
    values = np.nan_to_num(np.where(np.isnan(theirs), ours, theirs), posinf=0.0)
    parts = values[..., None] * np.stack([terms.terms[term][:steps] for term in own])
    eps = np.abs(values[[EPS in term for term in own]]).sum(0)
    bound = rounding * (1 + eps[:, None] / np.where(d > 0, d, np.inf))
    with np.errstate(invalid="ignore"):
        exact = np.abs(parts.sum(0) - y) <= LOOSE * np.maximum(np.abs(parts).sum(0), np.abs(y)) + 4 * bound
    return bool((exact.all(1) | undetermined).all())


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    steps = min(len(a), len(b))
    a, b = a[:steps], b[:steps]
    known = np.isfinite(a) & np.isfinite(b)
    return bool((np.abs(a - b)[known] <= LOOSE * np.abs(b)[known]).all())


def _solve(attempt: Terms) -> np.ndarray | None:
    """Return the coefficients (steps, terms) if they reproduce y exactly at all steps, else None."""
    y, terms = attempt.y, np.stack(list(attempt.terms.values()), axis=-1)
    rounding, d = (np.broadcast_to(array, y.shape) for array in (attempt.rounding, attempt.d))
    main = np.array([EPS not in term for term in attempt.terms])
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
    # a term may be proportional to another one, as the first moment and the gradient at the first step, or unseen
    spread = np.linalg.svd(rows / norms[:, None], compute_uv=False) if len(norms) else np.ones((0, 1))
    unseen = (np.abs(terms * solution[:, None, :]) <= UNSEEN * size[..., None]).all(1)
    singular = (spread.min(1) < SINGULAR * spread.max(1)) & ~(terms == 0).all(1).any(1)
    solution = np.where(singular[:, None], np.inf, np.where(unseen, np.nan, solution))
    return solution if exact else None


def _solve_limit(attempt: Terms) -> np.ndarray | None:
    """Return the factors (steps, 2) if y is the larger or smaller of two terms times factors, else None.

    The first factor is constant; the second one may change with the step.
    """
    (old, new), y = attempt.terms.values(), attempt.y
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
