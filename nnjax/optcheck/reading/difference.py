"""Compare the equations of an optimizer, read from what it stores, with those of a reference."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from nnjax.optcheck.calling.adapter import Adapter
from nnjax.optcheck.reading.check_text import holds_as_text, names_in_text
from nnjax.optcheck.reading.coefficients import SAME, factor_of
from nnjax.optcheck.reading.equation_text import SMALL, UNKNOWN, equation_text, multiple_text, parts_of
from nnjax.optcheck.reading.leaf_factors import with_leaf_factors
from nnjax.optcheck.reading.leaves import (
    MORE_SYMBOLS,
    SYMBOLS,
    UNKNOWN_RULE,
    candidate_leaf,
    gradients_of,
    mixtures_of,
    named_by_sign,
    names_by_likeness,
    reference_leaf,
    renamed_leaf,
    without_update,
)
from nnjax.optcheck.reading.linear_equations import LOOSE, Equation, close, same_equation
from nnjax.optcheck.reading.read_equations import (
    UPDATE,
    Equations,
    read_equations,
    settled,
    with_initial_values,
    without_multiples,
)
from nnjax.optcheck.reading.stored_arrays import stored_arrays
from nnjax.optcheck.reading.terms import EPS, OVER, Leaf, names_in
from nnjax.optcheck.rules.families import hyper_names, is_moments
from nnjax.optcheck.rules.update_rule import Formula
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.optcheck.trace.gradient_script import GradientScript
from nnjax.optcheck.trace.traces import trace

MOST_ARRAYS = 4  # with more arrays, too many sets of terms would be tried
CLIPS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)  # bounds of gradients to try
DECAYS = (1e-4, 5e-4, 1e-3, 0.01, 0.1, -0.01, -1e-4)  # weight decays to try
NONE = "(not needed)"  # an array without which the update can be computed


class Line(NamedTuple):
    """One equation, of the candidate and of the reference."""

    name: str
    candidate: str  # right side of the equation; UNKNOWN if it was not read, NONE for a missing array
    reference: str
    differs: bool
    remark: str = ""  # the difference in words, if it is simple
    factor: float = 1.0  # the candidate stores this multiple of the array on the left side

    @property
    def known(self) -> bool:
        """Return True if both sides were read."""
        return UNKNOWN not in (self.candidate, self.reference)

    @property
    def leaf(self) -> str:
        """Return the leaf in which the equation holds; "" for all leaves."""
        return self.name.removeprefix("in ").partition(": ")[0] if ": " in self.name else ""

    @property
    def array(self) -> str:
        """Return the array on the left side, without the leaf."""
        return self.name.rpartition(": ")[2]


def read_difference(
    adapter: Adapter,
    reference: Formula | Adapter,
    scripts: Sequence[GradientScript],
    leaves: Sequence[str],
    deadline: Deadline,
) -> tuple[Line, ...]:
    """Read the equations of an optimizer from what it stores, and compare them with those of a reference.

    Args:
      adapter: the optimizer.
      reference: the formula of the reference, or the reference if its formula is unknown.
      scripts: scripts on which the equations must be the same, the longest one last.
      leaves: the leaves whose arrays are read, without the half of the script, such as "norm/scale".
      deadline: the time limit, checked before every step.

    Returns:
      One line for each equation of the first leaf, and those of other leaves that are different; () if no equation was
      read, if none differs, or if the reference cannot be read.

    Raises:
      TimeLimitError: at the deadline.
      Exception: any exception of the optimizer.
    """
    if isinstance(reference, Formula) and not is_moments(reference.rule):
        return ()
    lines_of = {leaf: _lines_of_leaf(adapter, reference, scripts, leaf, deadline) for leaf in leaves}
    if not all(lines_of.values()):
        return ()
    lines = _merged(lines_of)
    return lines if any(line.differs for line in lines) and any(line.known for line in lines) else ()


def _merged(lines_of: dict[str, tuple[Line, ...]]) -> tuple[Line, ...]:
    """Return the lines that all leaves have in common, and the others with their leaf."""
    first, *rest = lines_of.values()
    common = [line for line in first if all(line in other for other in rest)]
    lines = [line if line in common else _in_leaf(line, next(iter(lines_of))) for line in first]
    for leaf, other in itertools.islice(lines_of.items(), 1, None):
        lines += [_in_leaf(line, leaf) for line in other if line not in common]
    return tuple(lines)


def certain_lines(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Return the lines that are true on their own, although not all equations were read.

    Both sides were read, and so were all arrays that they contain. So a line of the update "u" is left out unless the
    update was read, and so is an array that only one optimizer has, because the other may have it in another form.
    """
    certain = [line for line in lines if line.known and NONE not in (line.candidate, line.reference)]
    while True:
        read = {(line.leaf, line.array) for line in certain}

        def is_defined(line: Line, read: set[tuple[str, str]] = read) -> bool:
            arrays = names_in_text(f"{line.candidate}  {line.reference}") | {line.array.removesuffix("₀")}
            names = {UPDATE if array == "u" else array for array in arrays}
            return all({("", name), (line.leaf, name)} & read for name in names)

        defined = [line for line in certain if is_defined(line)]
        if len(defined) == len(certain):
            return tuple(certain)
        certain = defined


def _in_leaf(line: Line, leaf: str) -> Line:
    return line._replace(name=f"in {leaf}: {line.name}")


def _lines_of_leaf(
    adapter: Adapter, reference: Formula | Adapter, scripts: Sequence[GradientScript], leaf: str, deadline: Deadline
) -> tuple[Line, ...]:
    """Return the lines of one leaf. Equations on which the scripts disagree count as unknown."""
    rule, hyper = reference if isinstance(reference, Formula) else UNKNOWN_RULE
    betas = tuple(float(getattr(hyper, name)) for name in ("b1", "b2") if name in hyper_names(rule))
    readings: list[_Reading] = []
    for script in scripts:  # an update that one script shows to be unreadable takes longest, so it is read once
        readable = all(reading.ours[UPDATE] is not None for reading in readings)
        readings.append(_read(adapter, reference, script, leaf, deadline, with_update=readable))
    *others, last = readings = _with_leaf_factors(readings, betas)
    ours = _agreed(last.ours, [other.ours for other in others])
    theirs = _agreed(last.theirs, [other.theirs for other in others])
    lines = _lines(last._replace(ours=ours, theirs=theirs), betas)
    eps = float(hyper.eps) if isinstance(reference, Formula) and "eps" in hyper_names(rule) else 0.0
    return _with_hidden_eps(lines, theirs, eps)


def _with_hidden_eps(lines: tuple[Line, ...], theirs: Equations, eps: float) -> tuple[Line, ...]:
    """Add a remark to the line of the update if ε is missing in the equations of the reference because it is tiny."""
    labels = {label for equation in theirs.values() for label in parts_of(equation)}
    texts = "  ".join((*labels, *(line.reference for line in lines)))
    hidden = eps > 0 and EPS not in texts and f"{eps:.5g}" not in texts
    remark = f"ε = {eps:.5g} of the reference is missing in its equations, because its effect is below rounding here"
    return tuple(
        line._replace(remark="; ".join(filter(None, (line.remark, remark))))
        if hidden and line.name == UPDATE and line.known
        else line
        for line in lines
    )


def _agreed(equations: Equations, others: Sequence[Equations]) -> Equations:
    """Return the equations, with None for those that differ on another script."""
    return {
        name: equation if all(same_equation(other.get(name), equation, LOOSE) for other in others) else None
        for name, equation in equations.items()
    }


class _Reading(NamedTuple):
    """The equations of both optimizers on a script, and their arrays."""

    ours: Equations
    theirs: Equations
    our_leaf: Leaf
    their_leaf: Leaf
    factors: Mapping[str, float] = MappingProxyType({})  # the candidate stores these multiples of arrays in `our_leaf`


def _with_leaf_factors(readings: list[_Reading], betas: tuple[float, ...]) -> list[_Reading]:
    """Return the readings, with norms in the terms if the coefficients depend on them."""

    def with_factors(equations: Sequence[Equations], leaves: Sequence[Leaf]) -> list[dict[str, Equation | None]]:
        result = [dict(some) for some in equations]
        for name in equations[0]:
            column: Sequence[Equation] = [equation for some in equations if (equation := some.get(name)) is not None]
            if len(column) == len(equations):
                with np.errstate(all="ignore"):
                    column = with_leaf_factors(column, leaves, betas)
                for some, equation in zip(result, column, strict=True):
                    some[name] = equation
        return result

    ours = with_factors([some.ours for some in readings], [some.our_leaf for some in readings])
    theirs = with_factors([some.theirs for some in readings], [some.their_leaf for some in readings])
    return [some._replace(ours=a, theirs=b) for some, a, b in zip(readings, ours, theirs, strict=True)]


def _read(
    adapter: Adapter,
    reference: Formula | Adapter,
    script: GradientScript,
    leaf: str,
    deadline: Deadline,
    *,
    with_update: bool,
) -> _Reading:
    """Read the equations of both optimizers on a script, those of the updates only if `with_update` is True."""
    elements = np.flatnonzero(script.leaf == script.leaf_names.index(f"normal/{leaf}"))
    ours = _leaf_of(adapter, script, elements, deadline)
    if isinstance(reference, Adapter):
        theirs, reference = _leaf_of(reference, script, elements, deadline), UNKNOWN_RULE
    else:
        theirs = reference_leaf(reference, elements, ours, script)
    ours = ours._replace(epsilons=tuple(dict.fromkeys((*theirs.epsilons, *ours.epsilons))))
    if max(len(ours.after), len(theirs.after)) > MOST_ARRAYS:
        return _Reading({UPDATE: None}, {UPDATE: None}, ours, theirs)
    theirs = named_by_sign(theirs) if reference is UNKNOWN_RULE else theirs

    def equations_of(leaf: Leaf, decays: Sequence[float], clips: Sequence[float], likely: Equations) -> Equations:
        gradients, mixtures = gradients_of(reference, leaf, clips, decays), mixtures_of(reference, leaf)
        if with_update and likely.get(UPDATE, 0) is not None:
            return read_equations(leaf, gradients, mixtures, likely=likely)
        return read_equations(without_update(leaf), gradients, mixtures, likely=likely) | {UPDATE: None}

    expected = equations_of(theirs, DECAYS if reference is UNKNOWN_RULE else (), (), {})
    ours = renamed_leaf(ours, names_by_likeness(ours, theirs))
    read = equations_of(ours, DECAYS, CLIPS, expected)
    names = min(_assignments(ours, theirs), key=lambda names: _difference_count(_with_names(read, names), expected))
    if any(names[name] != name for name in names):
        ours = renamed_leaf(ours, names)
        # another order of the terms does not make the update readable, but Lion's terms depend on the names
        unreadable = read[UPDATE] is None and not mixtures_of(reference, ours)
        read = _with_names(read, names) if unreadable else equations_of(ours, DECAYS, CLIPS, expected)
    rate = float(reference.hyper.learning_rate)
    # without the update, nothing shows whether an array is a multiple of the reference's array or another array
    scales = _scales(read, expected, rate) if read[UPDATE] is not None else {}
    factors: dict[str, float] = {}
    for name, factor in scales.items():  # such as a velocity that contains the learning rate
        scaled = ours._replace(
            before=ours.before | {name: ours.before[name] / factor},
            after=ours.after | {name: ours.after[name] / factor},
        )
        other = equations_of(scaled, DECAYS, CLIPS, expected)
        alike, alike_if_scaled = _uses_alike(read, expected, name), _uses_alike(other, expected, name)
        inside = np.isclose(abs(factor), rate, rtol=SAME) and not alike
        if inside or (alike_if_scaled and not alike):
            ours, read = scaled, other
            factors[name] = float(f"{factor:.6g}")  # the same in all leaves, despite rounding
    return _Reading(settled(read, expected), expected, ours, theirs, factors)


def _leaf_of(adapter: Adapter, script: GradientScript, elements: np.ndarray, deadline: Deadline) -> Leaf:
    """Run an optimizer, and return the arrays that it stores for these elements, without multiples of others."""
    stored = stored_arrays(adapter, script, elements, deadline)
    result = trace(adapter, script, "float64", deadline)
    leaf = candidate_leaf(result.params[:, elements], result.updates[:, elements], elements, stored, script)
    gradients = {"g": leaf.grads}
    return with_initial_values(without_multiples(leaf, gradients), gradients)


def _assignments(ours: Leaf, theirs: Leaf) -> Iterator[dict[str, str]]:
    """Yield all ways to name the candidate's arrays, first the present one."""
    symbols = dict.fromkeys((*ours.after, *theirs.after, *MORE_SYMBOLS[: len(ours.after)]))
    for names in itertools.permutations(symbols, len(ours.after)):
        yield dict(zip(ours.after, names, strict=True))


def _with_names(equations: Equations, names: dict[str, str]) -> Equations:
    """Return equations in which arrays have other names."""

    def renamed(text: str) -> str:
        return re.sub(
            r"[^\W\d_](_max)?(?![\w])|[^\W\d_](_max)?(?=_old)", lambda word: names.get(word[0], word[0]), text
        )

    result: dict[str, Equation | None] = {}
    for name, equation in equations.items():
        if equation is not None:
            arrays = {renamed(term): values for term, values in equation.terms.values.items()}
            terms = equation.terms._replace(values=arrays, denominator=renamed(equation.terms.denominator))
            equation = Equation(terms, {renamed(term): c for term, c in equation.coefficients.items()})  # noqa: PLW2901
        result[names.get(name, name)] = equation
    return result


def _uses_alike(read: Equations, expected: Equations, name: str) -> bool:
    """Return True if the update has the same coefficients of an array as the reference's."""
    a, b = parts_of(read[UPDATE]), parts_of(expected[UPDATE])
    labels = [label for label in a.keys() | b.keys() if label.removesuffix(OVER) == name]
    return bool(labels) and all(label in a and label in b and close(a[label], b[label], SMALL) for label in labels)


def _scales(read: Equations, expected: Equations, rate: float) -> dict[str, float]:
    """Return the arrays that are multiples of the reference's arrays, with the factors.

    That is the ratio of all terms if it is constant, or that of the gradient's coefficients at the first step if it is
    the learning rate, up to its sign.
    """
    scales = {}
    for name in read.keys() & expected.keys() - {UPDATE}:
        ours, theirs = read[name], expected[name]
        if ours is None or theirs is None or ours.terms.form or theirs.terms.form:
            continue
        inputs = [
            term for term in ours.coefficients if term in theirs.coefficients and term != name and EPS not in term
        ]
        ratios = [ours.coefficients[term] / theirs.coefficients[term] for term in inputs]
        values = np.concatenate(ratios) if ratios else np.zeros(0)
        values = values[np.isfinite(values)]
        if not values.size or abs(values[0] - 1) <= SAME:
            continue
        constant = np.ptp(values) <= SAME * np.abs(values).max() and ours.terms.same_as(theirs.terms)
        if constant or np.isclose(abs(values[0]), rate, rtol=SAME):
            scales[name] = float(values[0])
    return scales


def _lines(reading: _Reading, betas: tuple[float, ...]) -> tuple[Line, ...]:
    """Return the lines of all arrays on which the updates depend, and of initial values that differ."""
    read, expected, our_leaf, their_leaf, factors = reading
    ours, theirs = _needed(read), _needed(expected)
    names = [*(name for name in (*SYMBOLS.values(), *MORE_SYMBOLS) if name in ours | theirs), UPDATE]
    betas = tuple(dict.fromkeys((*betas, *_decay_rates(read))))
    lines = []
    for name in names:
        a, b = read.get(name), expected.get(name)
        same = name in ours & theirs and same_equation(a, b)
        reference = _checked_text(name, b, betas, their_leaf) if name in theirs else NONE
        candidate = _checked_text(name, b if same else a, betas, our_leaf) if name in ours else NONE
        if same != (candidate == reference):  # a difference that the digits do not show, or a text that does not hold
            candidate = UNKNOWN
        remark = multiple_text(a, b, betas) if name == UPDATE and not same and "[" in candidate else ""
        lines.append(Line(name, candidate, reference, not same, remark, factors.get(name, 1.0)))
        if name in (ours & theirs) - {UPDATE}:
            a, b = our_leaf.before[name][0], their_leaf.before[name][0]
            if not np.array_equal(a, b):
                lines.append(Line(f"{name}₀", _start_text(a), _start_text(b), differs=True))
    return tuple(lines)


def _checked_text(name: str, equation: Equation | None, betas: tuple[float, ...], leaf: Leaf) -> str:
    """Return the right side of an equation; UNKNOWN if the text does not reproduce the recorded arrays."""
    text = equation_text(name, equation, betas)
    return text if text != UNKNOWN and holds_as_text(text, name, leaf) else UNKNOWN


def _start_text(values: np.ndarray) -> str:
    """Return an initial value as text."""
    return f"{values[0]:.6g}" if np.ptp(values) == 0 else "values that differ by element"


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
        factor = factor_of(parts_of(equation).get(name, np.zeros(0)), ())
        if 0 < factor.number < 1 and not factor.above and not factor.below:
            rates.append(factor.number)
    return rates


def _difference_count(read: Equations, expected: Equations) -> int:
    """Return the number of coefficients that differ."""
    count = 0
    for name in read.keys() | expected.keys():
        ours, theirs = read.get(name), expected.get(name)
        if not same_equation(ours, theirs):
            a, b = parts_of(ours), parts_of(theirs)
            common = [label for label in a if label in b and close(a[label], b[label], SMALL)]
            count += len(a.keys() | b.keys()) - len(common)
            count += ours is None or theirs is None or not ours.terms.same_as(theirs.terms)
    return count
