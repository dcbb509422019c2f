"""Describe how two optimizers differ by the equations of what they store."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nnjax.optcheck.calling.adapter import Adapter
from nnjax.optcheck.rules.families import hyper_names, is_by_tree, is_moments
from nnjax.optcheck.rules.rule_updates import steps
from nnjax.optcheck.rules.update_rule import LION, Formula
from nnjax.optcheck.search.coefficients import SAME, Factor, factor_of, product, total
from nnjax.optcheck.search.step_equations import (
    EPS,
    OVER,
    UPDATE,
    Arrays,
    Equation,
    Leaf,
    holds,
    initial_value,
    names_in,
    read_equations,
)
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.optcheck.trace.gradient_script import GradientScript, rule_inputs
from nnjax.optcheck.trace.stored_arrays import stored_arrays
from nnjax.optcheck.trace.traces import trace

SYMBOLS = {"m": "m", "v": "v", "velocity": "b", "v_max": "v_max", "g_mean": "ḡ", "step_square": "s"}  # fields of State
MORE_SYMBOLS = ("x", "y", "z", "w")
MOST_ARRAYS = 4  # with more arrays, too many sets of terms would be tried
COMPRESS = 0.05  # exponent that makes numbers of all magnitudes comparable
ALIKE = 0.8  # smallest correlation of compressed arrays that have the same role
CLIPS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)  # bounds of gradients to try
DECAYS = (1e-4, 5e-4, 1e-3, 0.01, 0.1, -0.01, -1e-4)  # weight decays to try
ROUNDING = 8 * float(np.finfo(np.float64).eps)
SMALL = 1e-5  # largest relative difference of coefficients that count as equal; rounding affects small ones
UNKNOWN, NONE = "?", "nothing"


Equations = Mapping[str, Equation | None]


class Line(NamedTuple):
    """One equation of the candidate beside that of the reference."""

    name: str
    candidate: str  # the right side; UNKNOWN if it could not be read, NONE if the candidate stores no such array
    reference: str
    differs: bool
    remark: str = ""  # the difference in words, if it is simple

    @property
    def known(self) -> bool:
        """Return True if both sides were read."""
        return UNKNOWN not in (self.candidate, self.reference)


def read_difference(
    adapter: Adapter, reference: Formula, scripts: Sequence[GradientScript], leaves: Sequence[str], deadline: Deadline
) -> tuple[Line, ...]:
    """Read the equations of an optimizer from what it stores, and compare them with those of a formula.

    Args:
      adapter: the optimizer.
      reference: the formula of the reference.
      scripts: scripts on which the equations must be the same, the longest one last.
      leaves: the leaves whose arrays are read, without the half of the script, such as "norm/scale".
      deadline: the time limit, checked before every step.

    Returns:
      One line for each equation of the first leaf, and those of other leaves that are different; () if no equation was
      read, if none differs, if the equations on two scripts disagree, or if the reference cannot be read.

    Raises:
      TimeLimitError: at the deadline.
      Exception: any exception of the optimizer.
    """
    if not is_moments(reference.rule) or is_by_tree(reference.rule):
        return ()
    lines = _lines_of_leaf(adapter, reference, scripts, leaves[0], deadline)
    others = [_lines_of_leaf(adapter, reference, scripts[-1:], leaf, deadline) for leaf in leaves[1:]]
    for leaf, other in zip(leaves[1:], others, strict=True):
        lines += tuple(line._replace(name=f"in {leaf}: {line.name}") for line in other if line not in lines)
    return lines if any(line.differs for line in lines) and any(line.known for line in lines) else ()


def _lines_of_leaf(
    adapter: Adapter, reference: Formula, scripts: Sequence[GradientScript], leaf: str, deadline: Deadline
) -> tuple[Line, ...]:
    """Return the lines of one leaf, or () if the equations on two scripts disagree."""
    betas = tuple(float(getattr(reference.hyper, name)) for name in ("b1", "b2") if name in hyper_names(reference.rule))
    *others, last = [_read(adapter, reference, script, leaf, deadline) for script in scripts]
    names = [name for name, equation in last.ours.items() if equation is not None]
    if not all(_same(other.ours.get(name), last.ours[name]) for other in others for name in names):
        return ()
    return _lines(last, betas)


class _Reading(NamedTuple):
    """The equations of both optimizers on a script, and the initial values of their arrays."""

    ours: Equations
    theirs: Equations
    our_starts: dict[str, np.ndarray]
    their_starts: dict[str, np.ndarray]


def _read(adapter: Adapter, reference: Formula, script: GradientScript, leaf: str, deadline: Deadline) -> _Reading:
    """Return what is read on a script."""
    elements = np.flatnonzero(script.leaf == script.leaf_names.index(f"normal/{leaf}"))
    stored = stored_arrays(adapter, script, elements, deadline)
    result = trace(adapter, script, "float64", deadline)
    ours = _candidate_leaf(result.params[:, elements], result.updates[:, elements], elements, stored, script)
    theirs = _reference_leaf(reference, elements, ours.params, script)
    ours = _with_starts(ours, _gradients(reference, ours, (), ()))
    if len(ours.after) > MOST_ARRAYS:
        return _Reading({UPDATE: None}, {UPDATE: None}, {}, {})
    expected = read_equations(theirs, _gradients(reference, theirs, (), ()), _mixtures(reference, theirs))
    ours = _renamed(ours, _names_by_likeness(ours, theirs))
    read = read_equations(ours, _gradients(reference, ours, CLIPS, DECAYS), _mixtures(reference, ours), expected)
    names = min(_permutations(ours), key=lambda names: _difference_count(_with_names(read, names), expected))
    if any(names[name] != name for name in names):
        ours = _renamed(ours, names)
        read = read_equations(ours, _gradients(reference, ours, CLIPS, DECAYS), _mixtures(reference, ours), expected)
    for name, factor in _scales(read, expected).items():  # such as a velocity that contains the learning rate
        scaled = ours._replace(
            before=ours.before | {name: ours.before[name] / factor},
            after=ours.after | {name: ours.after[name] / factor},
        )
        other = read_equations(
            scaled, _gradients(reference, scaled, CLIPS, DECAYS), _mixtures(reference, scaled), expected
        )
        inside = np.isclose(abs(factor), float(reference.hyper.learning_rate), rtol=SAME)
        if inside or (_uses_alike(other, expected, name) and not _uses_alike(read, expected, name)):
            ours, read = scaled, other
    starts = [{name: values[0] for name, values in some.before.items()} for some in (ours, theirs)]
    return _Reading(_settled(read, expected), expected, *starts)


def _settled(read: Equations, expected: Equations) -> Equations:
    """Replace coefficients by likely values if the equations still hold; rounding changes those of small terms."""
    settled = dict(read)
    for name, equation in read.items():
        if equation is not None and equation.terms.form not in ("max", "min"):
            for term in equation.terms.terms:
                known = expected.get(name)
                equation = _with_likely(equation, term, None if known is None else known.coefficients.get(term))  # noqa: PLW2901
            settled[name] = equation
    return settled


def _with_likely(equation: Equation, term: str, reference: np.ndarray | None) -> Equation:
    """Replace the coefficient of a term by that of the reference, by 0 for ε, or by a constant, if one holds."""
    column = equation.coefficients[term]
    known = column[np.isfinite(column)]
    values = [] if reference is None else [np.where(np.isnan(reference), column[: len(reference)], reference)]
    values += [np.zeros_like(column)] if term == EPS else []
    values += [np.full_like(column, float(f"{np.median(known):.4g}"))] if known.size else []
    attempts = (equation._replace(coefficients=equation.coefficients | {term: value}) for value in values)
    return next((some for some in attempts if holds(equation, some.coefficients)), equation)


def _with_starts(leaf: Leaf, gradients: Arrays) -> Leaf:
    """Return the leaf with the initial values of arrays that the optimizer creates at the first step."""
    before = dict(leaf.before)
    for name, values in leaf.before.items():
        start = 0.0 if values[0].any() else initial_value(name, leaf, gradients)
        before[name] = np.concatenate([np.full((1, values.shape[1]), start), values[1:]]) if start else values
    return leaf._replace(before=before)


def _permutations(leaf: Leaf) -> Iterator[dict[str, str]]:
    """Yield all ways to exchange the names of the arrays, first the present one."""
    for names in itertools.permutations(leaf.after):
        yield dict(zip(leaf.after, names, strict=True))


def _with_names(equations: Equations, names: dict[str, str]) -> Equations:
    """Return equations in which arrays have other names."""

    def renamed(text: str) -> str:
        return re.sub(
            r"[^\W\d_](_max)?(?![\w])|[^\W\d_](_max)?(?=_old)", lambda word: names.get(word[0], word[0]), text
        )

    result: dict[str, Equation | None] = {}
    for name, equation in equations.items():
        if equation is not None:
            arrays = {renamed(term): values for term, values in equation.terms.terms.items()}
            terms = equation.terms._replace(terms=arrays, denominator=renamed(equation.terms.denominator))
            equation = Equation(terms, {renamed(term): c for term, c in equation.coefficients.items()})  # noqa: PLW2901
        result[names.get(name, name)] = equation
    return result


def _uses_alike(read: Equations, expected: Equations, name: str) -> bool:
    """Return True if the update has the same coefficients of an array as the reference's."""
    a, b = _parts(read[UPDATE]), _parts(expected[UPDATE])
    labels = [label for label in a.keys() | b.keys() if label.removesuffix(OVER) == name]
    return bool(labels) and all(label in a and label in b and _close(a[label], b[label]) for label in labels)


def _candidate_leaf(
    params: np.ndarray, updates: np.ndarray, elements: np.ndarray, stored: list[np.ndarray], script: GradientScript
) -> Leaf:
    """Return the leaf without arrays that are the new parameters."""
    size = np.abs(params) + np.abs(updates)
    with np.errstate(invalid="ignore"):
        stored = [array for array in stored if not (np.abs(array[1:] - params - updates) <= 1e-9 * size).all()]
    names = [f"array {i}" for i in range(len(stored))]
    before, after = (
        {name: array[part] for name, array in zip(names, stored, strict=True)} for part in (slice(-1), slice(1, None))
    )
    return Leaf(rule_inputs(script).grads[:, elements], params, updates, ROUNDING * size, before, after)


def _reference_leaf(reference: Formula, elements: np.ndarray, params: np.ndarray, script: GradientScript) -> Leaf:
    """Return the leaf with the updates and states of a formula."""
    inputs = rule_inputs(script)
    inputs = inputs._replace(
        grads=inputs.grads[:, elements], params=params, leaf=inputs.leaf[elements], row=inputs.row[elements]
    )
    with np.errstate(all="ignore"):
        rows = list(steps(reference, inputs))
    updates = np.stack([update for update, _ in rows])
    hyper = reference.hyper
    starts = {"m": hyper.first_start, "v": hyper.second_start, "velocity": hyper.velocity_start}
    before, after = {}, {}
    for field, symbol in SYMBOLS.items():
        values = np.stack([np.broadcast_to(getattr(state, field), updates[0].shape) for _, state in rows])
        start = np.full((1, len(elements)), float(starts.get(field, 0.0)))
        if (values != start).any() and (field != "m" or reference.rule.first != "none"):
            before[symbol], after[symbol] = np.concatenate([start, values[:-1]]), values
    return Leaf(inputs.grads, params, updates, ROUNDING * np.abs(updates), before, after)


def _gradients(reference: Formula, leaf: Leaf, clips: Sequence[float], decays: Sequence[float]) -> Arrays:
    """Return the gradient, and what may be used in its place: the gradient after weight decay or clipping."""
    g, rule, hyper = leaf.grads, reference.rule, reference.hyper
    decays = [float(hyper.weight_decay), *decays] if rule.decay != "none" else decays
    clips = [float(hyper.clip), *clips] if rule.clip == "value" else clips
    gradients = {"g": g}
    gradients |= {total(["(g", product(Factor(w), "θ") + ")"]): g + w * leaf.params for w in decays}
    return gradients | {f"clip(g, ±{c:g})": np.clip(g, -c, c) for c in clips}


def _mixtures(reference: Formula, leaf: Leaf) -> Arrays:
    """Return terms of single rules: Adamax's |g| + ε, and mixtures of which Lion or a wrong Lion takes the sign."""
    if reference.rule.second.startswith("largest"):
        return {
            f"(|g| + {eps:g})": np.abs(leaf.grads) + eps for eps in dict.fromkeys((float(reference.hyper.eps), 1e-8))
        }
    if reference.rule.first not in LION or "m" not in leaf.before:
        return {}
    b1, b2 = float(reference.hyper.b1), float(reference.hyper.b2)
    weights = [(b1, 1 - b1), (b1, 1.0), (1 - b1, b1), (b2, 1 - b2), (1.0, 1.0), (b1, b1)]
    return {
        f"({a:.3g} {name} + {b:.3g} g)": a * values + b * leaf.grads
        for name, values in (("m_old", leaf.before["m"]), ("m", leaf.after["m"]))
        for a, b in weights
    }


def _names_by_likeness(ours: Leaf, theirs: Leaf) -> dict[str, str]:
    """Return names for the candidate's arrays: those of the most similar arrays of the reference, or other symbols."""
    pairs = sorted(
        ((_likeness(a, b), name, symbol) for name, a in ours.after.items() for symbol, b in theirs.after.items()),
        reverse=True,
    )
    names: dict[str, str] = {}
    for likeness, name, symbol in pairs:
        if name not in names and symbol not in names.values() and likeness > ALIKE:
            names[name] = symbol
    missing = [symbol for symbol in theirs.after if symbol not in names.values()]
    others = [name for name in ours.after if name not in names]
    if len(missing) == len(others) == 1:
        names[others[0]] = missing[0]
    return names | dict(zip([name for name in others if name not in names], MORE_SYMBOLS, strict=False))


def _renamed(leaf: Leaf, names: dict[str, str]) -> Leaf:
    """Return the leaf with other names; arrays of the reference come first, so their terms are tried first."""
    back = {symbol: name for name, symbol in names.items()}
    order = [symbol for symbol in (*SYMBOLS.values(), *MORE_SYMBOLS) if symbol in back]
    return leaf._replace(
        before={symbol: leaf.before[back[symbol]] for symbol in order},
        after={symbol: leaf.after[back[symbol]] for symbol in order},
    )


def _likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of two arrays after compressing their magnitudes."""
    x, y = (np.sign(array) * np.abs(array) ** COMPRESS for array in (a, b))
    if not (np.isfinite(x).all() and np.ptp(x) > 0 and np.ptp(y) > 0):
        return 0.0
    return abs(float(np.corrcoef(x.ravel(), y.ravel())[0, 1]))


def _scales(read: Equations, expected: Equations) -> dict[str, float]:
    """Return the arrays whose terms are a constant multiple of those of the reference, with the factor."""
    scales = {}
    for name in read.keys() & expected.keys() - {UPDATE}:
        ours, theirs = read[name], expected[name]
        if ours is None or theirs is None or not ours.terms.same_as(theirs.terms) or ours.terms.form:
            continue
        inputs = [term for term in ours.coefficients if term != name and EPS not in term]
        ratios = np.concatenate([ours.coefficients[term] / theirs.coefficients[term] for term in inputs])
        ratios = ratios[np.isfinite(ratios)]
        if ratios.size and np.ptp(ratios) <= SAME * np.abs(ratios).max() and abs(ratios[0] - 1) > SAME:
            scales[name] = float(np.median(ratios))
    return scales


def _lines(reading: _Reading, betas: tuple[float, ...]) -> tuple[Line, ...]:
    """Return the lines of all arrays on which the updates depend, and of initial values that differ."""
    read, expected, our_starts, their_starts = reading
    ours, theirs = _needed(read), _needed(expected)
    names = [*(name for name in (*SYMBOLS.values(), *MORE_SYMBOLS) if name in ours | theirs), UPDATE]
    betas = tuple(dict.fromkeys((*betas, *_decay_rates(read))))
    lines = []
    for name in names:
        a, b = read.get(name), expected.get(name)
        same = name in ours & theirs and _same(a, b)
        reference = _text(name, b, betas) if name in theirs else NONE
        texts = (reference if same else _text(name, a, betas) if name in ours else NONE, reference)
        remark = _multiple(a, b, betas) if name == UPDATE and not same and "[" in texts[0] else ""
        lines.append(Line(name, *texts, not same, remark))
        if name in (ours & theirs) - {UPDATE} and not np.array_equal(our_starts[name], their_starts[name]):
            ours_text, theirs_text = (_start_text(values[name]) for values in (our_starts, their_starts))
            lines.append(Line(f"{name}₀", ours_text, theirs_text, differs=True))
    return tuple(lines)


def _start_text(values: np.ndarray) -> str:
    """Return an initial value as text."""
    return f"{values[0]:.6g}" if np.ptp(values) == 0 else "values that differ by element"


def _same(ours: Equation | None, theirs: Equation | None) -> bool:
    """Return True if an equation is exact with the coefficients of another one that has the same terms."""
    return (
        ours is not None
        and theirs is not None
        and ours.terms.same_as(theirs.terms)
        and holds(ours, theirs.coefficients)
    )


def _needed(equations: Equations) -> set[str]:
    """Return the names of the equations on which the update depends; all if one of these could not be read."""
    needed, new = {UPDATE}, {UPDATE}
    while new:
        read = [equation for name in new if (equation := equations[name])]
        if len(read) < len(new):
            return set(equations)
        words = {
            word
            for equation in read
            for text in (equation.terms.denominator, *equation.coefficients)
            for word in names_in(text)
        }
        new = (words & equations.keys()) - needed
        needed |= new
    return needed


def _decay_rates(equations: Equations) -> list[float]:
    """Return the constant factors below 1 with which arrays are kept."""
    rates = []
    for name, equation in equations.items():
        factor = factor_of(_parts(equation).get(name, np.zeros(0)), ())
        if 0 < factor.number < 1 and not factor.above and not factor.below:
            rates.append(factor.number)
    return rates


def _parts(equation: Equation | None) -> dict[str, np.ndarray]:
    """Return the coefficients (steps,) of the terms and of ε, after (D + ε) is cancelled in terms beside the fraction.

    If y (D + ε) = a m + w D θ + c θ, then y = (a m + (c - w ε) θ) / (D + ε) + w θ.
    """
    if equation is None:
        return {}
    columns = dict(equation.coefficients)
    eps = -columns.pop(EPS) if EPS in columns else None
    for label in [label for label in columns if label.endswith(f" {EPS}")]:
        term = label.removesuffix(f" {EPS}")
        rest = columns.pop(label)
        with_eps = columns.get(term, 0.0 * rest) * (0.0 if eps is None else eps)
        if not _close(rest, with_eps):
            columns[term + OVER] = rest - with_eps
    columns |= {} if eps is None else {EPS: eps}
    return {label: column for label, column in columns.items() if np.nan_to_num(column).any()}


def _multiple(ours: Equation | None, theirs: Equation | None, betas: tuple[float, ...]) -> str:
    """Describe terms of the update that are a multiple of those of the reference at each step; "" if there are none."""
    a, b = _parts(ours), _parts(theirs)
    common = [label for label in a if label in b and label != EPS and not _close(a[label], b[label])]
    if (
        ours is None
        or theirs is None
        or ours.terms.denominator != theirs.terms.denominator
        or ours.terms.form
        or not common
    ):
        return ""
    ratios = [a[label] / b[label] for label in common]
    if not all(_close(ratio, ratios[0]) for ratio in ratios):
        return ""
    names = ", ".join(label.removesuffix(OVER) for label in common)
    whole = "the update" if a.keys() == b.keys() and len(common) + (EPS in a) == len(a) else f"its term in {names}"
    return f"{whole} is {factor_of(ratios[0], betas)} times that of the reference"


def _text(name: str, equation: Equation | None, betas: tuple[float, ...]) -> str:
    """Return the right side of an equation."""
    if equation is None:
        return UNKNOWN
    factors = {label: factor_of(column, betas) for label, column in _parts(equation).items()}
    factors = {"" if label == "1" else label: factor for label, factor in factors.items()}
    old = f"{UPDATE} " if name == UPDATE else ""
    form, denominator = equation.terms.form, equation.terms.denominator
    if form in ("max", "min"):
        return f"{form}({', '.join(product(factor, label) for label, factor in factors.items())})"
    eps = factors.pop(EPS, None)
    below = denominator if eps is None else f"({denominator} + {eps})"
    if form:
        root = _root(equation, betas) + (f" / √{below}" if denominator else "")
        return total([old.strip(), ("-" if form.startswith("-") else "") + root]) if old else root
    over = {label: factor for label, factor in factors.items() if label.endswith(OVER)}
    beside = [product(factor, label) for label, factor in factors.items() if label not in over]
    fraction = [f"{_numerator(over)} / {below}"] if over else []
    return total([old.strip(), *fraction, *beside] if old else [*beside, *fraction])


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
    squares = _parts(equation)
    squares.pop(EPS, None)
    first, *others = squares
    term = first.removesuffix("²")
    with np.errstate(invalid="ignore"):
        if not others and first.endswith("²"):
            return product(factor_of(np.sqrt(squares[first]), betas), term)
        if len(others) == 1 and others[0].startswith(f"{first} "):
            added = factor_of(squares[first] / squares[others[0]], betas)
            return f"{product(factor_of(np.sqrt(squares[others[0]]), betas), term)} √({others[0].split()[1]} + {added})"
    return f"√({total([product(factor_of(column, betas), label) for label, column in squares.items()])})"


def _difference_count(read: Equations, expected: Equations) -> int:
    """Return the number of coefficients that differ."""
    count = 0
    for name in read.keys() | expected.keys():
        ours, theirs = read.get(name), expected.get(name)
        if not _same(ours, theirs):
            a, b = _parts(ours), _parts(theirs)
            count += sum(
                label not in a or label not in b or not _close(a[label], b[label]) for label in a.keys() | b.keys()
            )
            count += ours is None or theirs is None or not ours.terms.same_as(theirs.terms)
    return count


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    known = np.isfinite(a) & np.isfinite(b)
    return bool((np.abs(a - b)[known] <= SMALL * np.abs(b)[known]).all())
