"""List the sets of terms of which a stored array or an update may be the sum."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

MOST = 3  # largest number of terms, without the ε term
EPS = "ε"  # the term that adds ε to the denominator
OVER = " over D"  # end of a term of the update that is divided by D; the others are added after the division
SQUARED = "squared"
PRODUCT = "twice "  # begin of the term 2 a b of (a + b)²
OUTSIDE = f"√D {EPS}"  # the term of a squared equation if ε is added outside the root of D

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


class Terms(NamedTuple):
    """The terms of an equation y D = Σ coefficient · term, as arrays (steps, elements)."""

    y: np.ndarray  # y D
    values: Arrays  # the terms, by their texts
    denominator: str = ""  # D without ε, such as "√v"; "" for 1
    d: np.ndarray | float = 1.0  # D
    rounding: np.ndarray | float = 0.0  # how much rounding may change y D
    form: str = ""
    """ "max" or "min" instead of a sum; SQUARED if y², D and the terms are squares, with "-" in front if y is -√(…)."""

    def same_as(self, other: "Terms") -> bool:
        """Return True if two equations have the same terms."""
        return (self.denominator, self.form, {*self.values}) == (other.denominator, other.form, {*other.values})


def attempts_for_array(name: str, leaf: Leaf, gradient: Arrays, mixtures: Arrays) -> Iterator[Terms]:
    """Yield attempts for the new value of a stored array, with fewer terms if the gradient is not "g"."""
    y, old = leaf.after[name], leaf.before[name]
    [(text, g)] = gradient.items()
    others = {other: values for other, values in leaf.after.items() if other != name}
    own = own_terms(name, leaf, text, g)
    rare: Arrays = {f"({text} - {name}_old)²": (g - old) ** 2}
    if text == "g":
        rare |= {f"sign({term})": np.sign(values) for term, values in (mixtures | others).items()}
        rare |= {f"√{name}": np.sqrt(old)} | {f"{other}_old": leaf.before[other] for other in others}
    for other, new in others.items():
        rare |= {f"{other}²": new**2}
        rare |= {f"({text} - {other})²": (g - new) ** 2, f"({text} + {other})²": (g + new) ** 2}
        rare |= {f"{text} {other}": g * new, f"({text} - {other}_old)²": (g - leaf.before[other]) ** 2}
    for chosen in subsets(own):
        yield Terms(y, chosen)
    for chosen in subsets({**own, **others}, rare):
        if not chosen.keys() <= own.keys():
            yield Terms(y, chosen)
    for term, values in rare.items():
        yield Terms(y, {name: old, term: values, "1": own["1"]})
    sizes = {term: own[term] for term in (f"{text}²", f"|{text}|")}
    inputs = {text: g} | sizes | others
    inputs |= {f"({term} + {eps:g})": size + eps for term, size in sizes.items() for eps in leaf.epsilons}
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


def own_terms(name: str, leaf: Leaf, text: str, g: np.ndarray) -> Arrays:
    """Return the terms of an array that do not contain other arrays."""
    own = {name: leaf.before[name], text: g, f"{text}²": g**2, f"|{text}|": np.abs(g), "θ": leaf.params}
    own |= {"1": np.ones_like(g), "sign(θ)": np.sign(leaf.params)}
    return own | ({"sign(g)": np.sign(g), "g³": g**3} if text == "g" else {})


def attempts_for_update(leaf: Leaf, passes: Sequence[Arrays], mixtures: Arrays) -> Iterator[Terms]:
    """Yield attempts for the update, first those with the gradients of the first pass."""
    return itertools.chain.from_iterable(_attempts_for_gradients(leaf, gradients, mixtures) for gradients in passes)


def _attempts_for_gradients(leaf: Leaf, gradients: Arrays, mixtures: Arrays) -> Iterator[Terms]:
    """Yield attempts for the update with some gradients, such as "g" and "(g + 0.01 θ)"."""
    p, u = leaf.params, leaf.updates
    constants = {"θ": p, "1": np.ones_like(p), "sign(θ)": np.sign(p)}
    old = {f"{name}_old": values for name, values in leaf.before.items()}
    numerators = {**leaf.after, **gradients, **old, **mixtures}
    signs = {f"sign({name})": np.sign(values) for name, values in (leaf.after | gradients | mixtures).items()}
    for chosen in subsets({**numerators, **signs, **constants}):
        yield Terms(u, chosen, rounding=leaf.rounding)
    alone = {**constants, **numerators}
    for size, (denominator, d) in itertools.product(range(1, MOST + 1), list(_denominators(leaf))):
        over = {f"{name}{OVER}": values for name, values in numerators.items() if name not in names_in(denominator)}
        beside = {name: alone[name] * d for name in (alone if size < MOST else constants)}
        for chosen in subsets(over | beside, sizes=(size,)):
            if over.keys() & chosen.keys():
                # (√v + ε) w θ = w √v θ + w ε θ
                with_eps = {f"{term} {EPS}": alone[term] for term in beside if term in chosen}
                with_eps = {term: x for term, x in with_eps.items() if term.replace(f" {EPS}", OVER) not in chosen}
                yield Terms(u * d, chosen | with_eps | {EPS: u}, denominator, d, leaf.rounding * d)
    yield from _attempts_with_root(leaf, numerators)


def _attempts_with_root(leaf: Leaf, numerators: Arrays) -> Iterator[Terms]:
    """Yield attempts with ε inside a root, squared: a m / √(v + ε) as u² (v + ε) = a² m².

    The numerator may also be multiplied by the root of another array plus ε, as in Adadelta, and each ε may be outside
    its root: (√v + ε)² = v + 2 ε √v + ε².
    """
    u, rounding = leaf.updates, leaf.rounding
    arrays = {f"{name}_old": values for name, values in leaf.before.items()} | leaf.after
    squares = [(name, d) for name, d in _denominators(leaf) if not name.startswith("√")]
    for (denominator, d), (term, x) in itertools.product(squares, numerators.items()):
        signs = np.sign(u * x)[(np.abs(u) > 4 * rounding) & (x != 0)]
        form = ("-" if signs.sum() < 0 else "") + SQUARED
        bound = (2 * np.abs(u) + rounding) * rounding * d
        for other in [other for other in numerators if other != term and other.startswith("g")]:
            square = {f"{term}²": x**2, f"{PRODUCT}{term} {other}": 2 * x * numerators[other]}
            square |= {f"{other}²": numerators[other] ** 2, EPS: u**2}
            yield Terms(u**2 * d, square, denominator, d, bound, form)
        if len(np.unique(signs)) != 1:
            continue
        yield Terms(u**2 * d, {f"{term}²": x**2, EPS: u**2}, denominator, d, bound, form)
        for factor, s in arrays.items():
            if not names_in(factor) & names_in(denominator) and (s >= 0).all():
                both = {f"{term}²": x**2, f"{term}² {factor}": x**2 * s}
                inside, outside = {EPS: u**2}, {EPS: u**2, OUTSIDE: u**2 * np.sqrt(d)}
                root = {f"{term}² √{factor}": x**2 * np.sqrt(s)}
                for terms in (both | inside, both | outside, both | root | inside, both | root | outside):
                    yield Terms(u**2 * d, terms, denominator, d, bound, form)


def subsets(terms: Arrays, rare: Arrays | None = None, sizes: Sequence[int] = range(1, MOST + 1)) -> Iterator[Arrays]:
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
