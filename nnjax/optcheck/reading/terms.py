"""List the sets of terms of which a stored array or an update may be the sum."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nnjax.optcheck.reading.screening import likely_sets

MOST = 3  # largest number of terms, without the ε term
PROBE = 8  # the step at which a set of terms is tried first
EPS = "ε"  # the term that adds ε to the denominator
INSIDE = "√ε"  # the coefficient ε of a denominator √(v + ε)
OVER = " over D"  # end of a term of the update that is divided by D; the others are added after the division
SQUARED = "squared"
PRODUCT = "twice "  # begin of the term 2 a b of (a + b)²
OUTSIDE = f"√D {EPS}"  # the term of a squared equation if ε is added outside the root of D
TINY = 1e-200  # instead of 0 under a root
EPSILONS = (1e-6, 1e-8, 1e-7, 1e-10, 1e-4, 1e-5, 1e-3, 1e-12)  # usual ε that are added to an array in the numerator

CLIP, TANH = "clip", "tanh"

Arrays = dict[str, np.ndarray]


class Leaf(NamedTuple):
    """The recorded arrays of a leaf, of shape (steps, elements)."""

    grads: np.ndarray
    params: np.ndarray
    updates: np.ndarray
    rounding: np.ndarray  # how much rounding may change each update
    norms: np.ndarray  # (steps,), norm of the gradients of all leaves
    epsilons: tuple[float, ...]  # values of ε that may be added to |g| before a maximum is taken
    before: Arrays  # stored arrays before each step
    after: Arrays  # the same arrays after each step
    rates: tuple[float, ...] = ()  # decay rates of stored arrays


class Outer(NamedTuple):
    """A function of a sum: y = scale · f(sum) - decay · θ, or clip(sum, ±scale) - decay · θ."""

    function: str
    scale: float
    decay: float = 0.0


class Terms(NamedTuple):
    """The terms of an equation y D = Σ coefficient · term, as arrays (steps, elements)."""

    y: np.ndarray  # y D
    values: Arrays  # the terms, by their texts
    denominator: str = ""  # D without ε, such as "√v"; "" for 1
    d: np.ndarray | float = 1.0  # D
    rounding: np.ndarray | float = 0.0  # how much rounding may change y D
    form: str = ""
    """ "max" or "min" instead of a sum; SQUARED if y², D and the terms are squares, with "-" in front if y is -√(…)."""
    square: np.ndarray | None = None  # v, if D is √(v + ε) with an unknown ε at each step
    outer: Outer | None = None  # a function of the sum

    def same_as(self, other: "Terms") -> bool:
        """Return True if two equations have the same terms."""
        own, others = (
            (some.denominator, some.form, some.square is None, {*some.values}, some.outer) for some in (self, other)
        )
        return own == others

    def at_step(self, step: int) -> "Terms":
        """Return the terms of one step."""
        values = {term: x[[step]] for term, x in self.values.items()}
        d, rounding = (np.broadcast_to(x, self.y.shape)[[step]] for x in (self.d, self.rounding))
        square = None if self.square is None else self.square[[step]]
        return self._replace(y=self.y[[step]], values=values, d=d, rounding=rounding, square=square)

    def with_eps_inside(self, eps: np.ndarray) -> "Terms":
        """Return an equation with D = √v for D = √(v + ε), with an ε for each step."""
        if self.square is None:
            return self
        d = np.sqrt(np.maximum(self.square + eps[:, None], 0.0))
        with np.errstate(all="ignore"):
            ratio = d / self.d
        values = {term: x if term.endswith(OVER) else x * ratio for term, x in self.values.items()}
        return self._replace(y=self.y * ratio, values=values, d=d, rounding=self.rounding * ratio)


class Denominator(NamedTuple):
    """An array by which terms are divided, and its square if it is a root."""

    name: str
    d: np.ndarray
    square: np.ndarray | None = None


def attempts_for_array(
    name: str, leaf: Leaf, gradient: Arrays, mixtures: Arrays, only: Terms | None = None
) -> Iterator[Terms]:
    """Yield attempts for the new value of a stored array, with fewer terms if the gradient is not "g".

    With `only`, sums and fractions with other terms are left out.
    """
    y, old = leaf.after[name], leaf.before[name]
    [(text, g)] = gradient.items()
    others = {other: values for other, values in leaf.after.items() if other != name}
    own = own_terms(name, leaf, text, g)
    rare: Arrays = {
        f"({text} - {name}_old)²": (g - old) ** 2,
        f"{text} {name}_old": g * old,
        f"√|{text}|": np.sqrt(np.abs(g)),
    }
    if text == "g":
        rare |= {_sign(term): np.sign(values) for term, values in (mixtures | others).items()}
        rare |= {f"√{name}": np.sqrt(old)} | {f"{other}_old": leaf.before[other] for other in others}
        rare |= {f"{name}²": old**2, f"|{name}|": np.abs(old), "|θ|": np.abs(leaf.params), "θ²": leaf.params**2}
        rare |= {f"{text} θ": g * leaf.params}
    for other, new in others.items():
        rare |= {f"{other}²": new**2, f"|{other}|": np.abs(new), f"{other}_old²": leaf.before[other] ** 2}
        rare |= {f"({text} - {other})²": (g - new) ** 2, f"({text} + {other})²": (g + new) ** 2}
        rare |= {f"{text} {other}": g * new, f"({text} - {other}_old)²": (g - leaf.before[other]) ** 2}
        rare |= {
            f"{text} {other}_old": g * leaf.before[other],
            f"√{other}": np.sqrt(new),
            f"|{text} {other}|": np.abs(g * new),
        }
    yield from sums(y, own, only=only)
    if only is None:
        shifted = {term: own[term] for term in (name, f"{text}²", text, "1")}
        yield Terms(y, shifted)  # (g + c)²
    for attempt in sums(y, {**own, **others}, rare, only=only):
        if not attempt.values.keys() <= own.keys():
            yield attempt
    for term, values in rare.items():
        yield Terms(y, {name: old, term: values, "1": own["1"]})
    sizes = {term: own[term] for term in (f"{text}²", f"|{text}|")}
    inputs = {text: g} | sizes | others
    inputs |= {f"({term} + {eps:g})": size + eps for term, size in sizes.items() for eps in leaf.epsilons}
    for form, (term, values) in itertools.product(("max", "min"), inputs.items()):
        yield Terms(y, {name: old, term: values}, form=form)
    for kept in ({name: old}, {f"{name}²": old**2}):
        yield Terms(y**2, {**kept, f"{text}²": g**2}, form=SQUARED)
    signs = {_sign(text): np.sign(g)}
    beside = {term: own[term] for term in (name, text, "θ", "1")}
    above = {text: g, **others, **signs, **{f"{text}²": g**2}} | {
        f"{other}_old": leaf.before[other] for other in others
    }
    for size, denominator in itertools.product(range(1, MOST + 1), list(_denominators(leaf, name, gradient))):
        for attempt in fractions(y, above, beside, denominator, np.zeros_like(y), size, (old,), only):
            if size < MOST or name in attempt.values:
                yield attempt
    u, rounding = leaf.updates, leaf.rounding
    of_square = (2 * np.abs(u) + rounding) * rounding
    for term, values, bound in (("u", u, rounding), ("|u|", np.abs(u), rounding), ("u²", u**2, of_square)):
        yield Terms(y, {name: old, term: values}, rounding=bound)
        yield Terms(y, {name: old, text: g, term: values}, rounding=bound)
    yield from _squared_steps(leaf, name, text, g)


def own_terms(name: str, leaf: Leaf, text: str, g: np.ndarray) -> Arrays:
    """Return the terms of an array that do not contain other arrays."""
    own = {name: leaf.before[name], text: g, f"{text}²": g**2, f"|{text}|": np.abs(g), "θ": leaf.params}
    own |= {"1": ones(leaf), "sign(θ)": np.sign(leaf.params), f"sign({name})": np.sign(leaf.before[name])}
    return own | ({"sign(g)": np.sign(g), "g³": g**3, "g_old": old_gradient(leaf)} if text == "g" else {})


def old_gradient(leaf: Leaf) -> np.ndarray:
    """Return the gradient of the step before, 0 at the first step and for elements that are left out."""
    old = np.concatenate([np.zeros_like(leaf.grads[:1]), leaf.grads[:-1]])
    return np.where(leaf.params == 0, 0.0, old)


def probe_step(y: np.ndarray) -> int:
    """Return the step at which terms are tried first: the usual one, or that with most elements if there are few."""
    step = min(PROBE, len(y) - 1)
    counts = ((y != 0) & np.isfinite(y)).sum(1)
    return step if 2 * counts[step] >= counts.max() else int(counts.argmax())


def statistics(leaf: Leaf) -> Arrays:
    """Return norms and means of the arrays of a leaf at each step (steps,), by their texts."""
    arrays = {"g": leaf.grads, "θ": leaf.params, "u": leaf.updates, **leaf.after}
    arrays |= {f"{name}_old": values for name, values in leaf.before.items()}
    result = {"‖all g‖": leaf.norms, "mean(g)": leaf.grads.mean(1)}
    with np.errstate(all="ignore"):
        for name, values in arrays.items():
            result |= {f"‖{name}‖": np.sqrt((values**2).sum(1)), f"rms({name})": np.sqrt((values**2).mean(1))}
            result |= {f"‖{name}‖₁": np.abs(values).sum(1), f"‖{name}‖∞": np.abs(values).max(1)}
        ratios = {f"‖θ‖/‖{name}‖": result["‖θ‖"] / result[f"‖{name}‖"] for name in arrays if name != "θ"}
    return result | ratios


def ones(leaf: Leaf) -> np.ndarray:
    """Return the constant term; it is 0 for elements that are left out, as θ is."""
    return np.where(leaf.params == 0, 0.0, 1.0)


def attempts_for_update(
    leaf: Leaf, passes: Sequence[Arrays], mixtures: Arrays, only: Terms | None = None
) -> Iterator[Terms]:
    """Yield attempts for the update, first those with the gradients of the first pass; `only` as above."""
    return itertools.chain.from_iterable(
        _attempts_for_gradients(leaf, gradients, mixtures, only) for gradients in passes
    )


def _attempts_for_gradients(leaf: Leaf, gradients: Arrays, mixtures: Arrays, only: Terms | None) -> Iterator[Terms]:
    """Yield attempts for the update with some gradients, such as "g" and "(g + 0.01 θ)"."""
    p, u, rounding = leaf.params, leaf.updates, leaf.rounding
    constants = {"θ": p, "1": ones(leaf), "sign(θ)": np.sign(p), "θ²": p**2}
    old = {f"{name}_old": values for name, values in leaf.before.items()}
    numerators = {**leaf.after, **gradients, **old, "g_old": old_gradient(leaf)}
    signs = {_sign(name): np.sign(values) for name, values in (leaf.after | gradients | old).items()}
    mixed = mixtures | {_sign(name): np.sign(values) for name, values in mixtures.items()}
    if mixtures:
        yield from sums(u, {**signs, **constants}, {}, rounding, only)
        for attempt in sums(u, {**mixed, **constants}, {}, rounding, only):
            if len(attempt.values.keys() & mixed.keys()) == 1:
                yield attempt
    yield from sums(u, {**numerators, **signs, **constants}, {}, rounding, only)
    denominators = list(_denominators(leaf, gradients=gradients))
    for size, denominator in itertools.product(range(1, MOST + 1), denominators):
        beside = {**constants, **numerators} if size < MOST else constants
        yield from fractions(u, numerators, beside, denominator, rounding, size, (p,), only)
    products = _products(leaf, gradients | leaf.after)
    rooted = _with_roots(leaf, gradients)
    for size, denominator in itertools.product((1, 2), denominators):
        for above in (rooted, signs | products):
            for attempt in fractions(u, above, constants, denominator, rounding, size, (p,), only):
                if above is not rooted or sum(term.endswith(OVER) for term in attempt.values) == 1:
                    yield attempt
    yield from sums(u, {**numerators, **constants}, rooted | products, rounding, only)


def _products(leaf: Leaf, terms: Arrays) -> Arrays:
    """Return products of terms, and their sizes."""
    pairs = itertools.combinations_with_replacement(terms.items(), 2)
    result = {f"{a}²" if a == b else f"{a} {b}": x * y for (a, x), (b, y) in pairs}
    roots = {f"√{name}": np.sqrt(values) for name, values in leaf.after.items() if (values >= 0).all()}
    return result | {f"|{a}|": np.abs(x) for a, x in terms.items() if (x < 0).any()} | roots


def _with_roots(leaf: Leaf, gradients: Arrays) -> Arrays:
    """Return gradients times the root of an array plus ε, as in Adadelta; ε may be outside the root."""
    result: Arrays = {}
    arrays = leaf.after | {f"{name}_old": values for name, values in leaf.before.items()}
    squares = {name: values for name, values in arrays.items() if (values >= 0).all()}
    if sum((values >= 0).all() for values in leaf.after.values()) < 2:
        return {}
    for (text, g), (name, s) in itertools.product(gradients.items(), squares.items()):
        for eps in dict.fromkeys((*leaf.epsilons, *EPSILONS)):
            result[f"{text} √({name} + {eps:g})"] = g * np.sqrt(s + eps)
            result[f"{text} (√{name} + {eps:g})"] = g * (np.sqrt(s) + eps)
            result[f"{text} ({name} + {eps:g})"] = g * (s + eps)
    return result


def _squared_steps(leaf: Leaf, name: str, text: str, g: np.ndarray) -> Iterator[Terms]:
    """Yield averages of squared steps as in Adadelta, whose steps are the gradient times a power of old values.

    Each step is divided by a power of another array; the same ε is added to both arrays.
    """
    y, old = leaf.after[name], leaf.before[name]
    others = {other: v for other, v in leaf.after.items() if other != name and (v >= 0).all()}
    if not others or (old < 0).any():
        return
    for (other, v), eps in itertools.product(others.items(), dict.fromkeys((*leaf.epsilons, *EPSILONS))):
        above = {
            f"({name} + {eps:g})": old + eps,
            f"({name} + {eps:g})²": (old + eps) ** 2,
            f"(√{name} + {eps:g})²": (np.sqrt(old) + eps) ** 2,
        }
        below = {
            f"({other} + {eps:g})": v + eps,
            f"({other} + {eps:g})²": (v + eps) ** 2,
            f"(√{other} + {eps:g})²": (np.sqrt(v) + eps) ** 2,
        }
        for (power, size), (denominator, d) in itertools.product(above.items(), below.items()):
            yield Terms(y * d, {f"{text}² {power}{OVER}": g**2 * size, name: old * d}, denominator, d)


def sums(
    y: np.ndarray,
    terms: Arrays,
    rare: Arrays | None = None,
    rounding: np.ndarray | float = 0.0,
    only: Terms | None = None,
) -> Iterator[Terms]:
    """Yield sums of at most three terms, or of two terms if one is rare, smallest first."""
    step = probe_step(y)
    bound = np.broadcast_to(rounding, y.shape)
    every = terms | (rare or {})
    for size in range(1, MOST + 1):
        some = every if size < MOST else terms
        if only is not None:
            chosen_sets: Iterable[list[str]] = (
                [[*only.values]] if not only.denominator and only.values.keys() <= some.keys() else []
            )
        else:
            values = np.array([values[step] for values in some.values()])
            chosen_sets = _named(some, likely_sets(y[step], values, (), np.ones_like(y[step]), bound[step], size))
        for chosen in chosen_sets:
            if len(chosen) == size:
                yield Terms(y, {name: every[name] for name in chosen}, rounding=rounding)


def _named(names: Iterable[str], sets: Iterable[tuple[int, ...]]) -> Iterator[list[str]]:
    """Yield sets of indices as names."""
    names = list(names)
    return ([names[i] for i in chosen] for chosen in sets)


def fractions(
    y: np.ndarray,
    above: Arrays,
    beside: Arrays,
    denominator: Denominator,
    rounding: np.ndarray,
    size: int,
    usual: Sequence[np.ndarray],
    only: Terms | None,
) -> Iterator[Terms]:
    """Yield sums of terms, some of which are divided by D + ε or √(v + ε)."""
    name, d, square = denominator
    over = {f"{term}{OVER}": values for term, values in above.items() if term not in names_in(name) - {"g"}}
    names = [*over, *beside]
    if not over or size > len(names):
        return
    if only is not None:
        wanted = [term for term in only.values if EPS not in term]
        same = only.denominator == name and len(wanted) == size and {*wanted} <= {*names}
        chosen_sets: Iterable[list[str]] = [wanted] if same else []
    else:
        chosen_sets = _screened(y, over, beside, d, rounding, size, usual)
    for chosen_names in chosen_sets:
        if not over.keys() & {*chosen_names}:
            continue
        # (√v + ε) w θ = w √v θ + w ε θ
        outside = {term: over[term] if term in over else beside[term] * d for term in chosen_names}
        with_eps = {f"{term} {EPS}": beside[term] for term in chosen_names if term in beside}
        with_eps = {term: x for term, x in with_eps.items() if term.replace(f" {EPS}", OVER) not in outside}
        yield Terms(y * d, outside | with_eps | {EPS: y}, name, d, rounding * d)
        if square is not None:
            square = np.maximum(square, TINY)
            root = np.sqrt(square)
            inside = {term: over[term] if term in over else beside[term] * root for term in chosen_names}
            yield Terms(y * root, inside, name, root, rounding * root, square=square)


def _screened(
    y: np.ndarray,
    over: Arrays,
    beside: Arrays,
    d: np.ndarray,
    rounding: np.ndarray,
    size: int,
    usual: Sequence[np.ndarray],
) -> Iterator[list[str]]:
    """Yield the sets of divided and undivided terms that fit the elements with a large D."""
    step = probe_step(y)
    values = np.array([*(x[step] for x in over.values()), *(x[step] * d[step] for x in beside.values())])
    # y D - ε y - ε y / D …: ε outside the root, and a small one inside it
    always = [part for x in (y, *usual) for part in (x[step], x[step] / d[step])]
    sets = likely_sets(y[step] * d[step], values, always, d[step], rounding[step] * d[step], size)
    return _named([*over, *beside], sets)


def subsets(terms: Arrays) -> Iterator[Arrays]:
    """Yield all sets of at most three terms."""
    for size in range(1, MOST + 1):
        for chosen in itertools.combinations(terms, size):
            yield {term: terms[term] for term in chosen}


def _sign(term: str) -> str:
    """Return the text of the sign of a term, such as "sign(m)" or "sign(0.9 m + 0.1 g)"."""
    return f"sign{term}" if term.startswith("(") else f"sign({term})"


def names_in(expression: str) -> set[str]:
    """Return the names of the arrays in an expression."""
    for mark in "√()²|‖₁∞/":
        expression = expression.replace(mark, " ")
    return {word.removesuffix("_old") for word in expression.replace("sign", " ").split()}


def _denominators(leaf: Leaf, without: str = "", gradients: Arrays | None = None) -> Iterator[Denominator]:
    """Yield the stored arrays that are never negative, and their roots, with their names.

    The variance is such an array minus the square of a mean, or plus it, or with a mean that is not kept.
    """
    arrays = {**leaf.after, **{f"{name}_old": values for name, values in leaf.before.items()}}
    squares = {f"{name}²": values**2 for name, values in leaf.after.items() if (values < 0).any()}
    for (text, g), rate in itertools.product((gradients or {}).items(), leaf.rates):
        squares[f"{(1 - rate) ** 2:.6g} {text}²"] = ((1 - rate) * g) ** 2
    for name, values in arrays.items():
        if name.removesuffix("_old") != without and (values >= 0).all() and (values > 0).any():
            yield Denominator(f"√{name}", np.sqrt(values), values)
            yield Denominator(name, values)
            for text, square in squares.items():
                for sign, variance in (("-", values - square), ("+", values + square)):
                    if (variance >= 0).all():
                        yield Denominator(f"√({name} {sign} {text})", np.sqrt(variance), variance)
                        yield Denominator(f"({name} {sign} {text})", variance)
