"""Search for update rules that reproduce recorded updates, from a rule to its neighbours, closest first."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from nnjax.optcheck.rules.families import (
    edits_between,
    hyper_names,
    is_costly,
    is_moments,
    neighbours,
    with_usual_values,
)
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES
from nnjax.optcheck.rules.rule_choices import BOTH_MOMENTS, Edit
from nnjax.optcheck.rules.update_rule import Formula, HyperParams
from nnjax.optcheck.search.fitting import (
    Fit,
    Target,
    fit,
    fit_learning_rate,
    fit_roughly,
    free_names,
    reproduces,
)
from nnjax.optcheck.search.library_choices import similar_choices

COMPENSATION = {  # hyper-parameters that can compensate for a different choice at a place
    "decay": ["weight_decay"],
    "velocity": ["learning_rate"],
    "first_correction": ["learning_rate", "eps", "weight_decay"],
    "second_correction": ["learning_rate", "eps", "weight_decay"],
}
ROUGH = 100  # pairs of choices that are fitted roughly at a time
EXACT = 12  # of the rules that were fitted roughly, the closest ones that are fitted exactly
LIBRARY_CHOICES = "library rules with one other choice"
LIBRARIES, PAIRS = "library rules", "two other choices and other numbers"  # names of levels
TRIPLES, NUMBERS = "three other choices", "the reference with other numbers"
SWITCHES = ("clip", "floor")  # large values have the effect of a rule without the choice, so that rule is tried too
LARGEST_EPS = 100.0  # rules with a larger ε are excluded, because they act like rules without a second moment
FIRST = 2  # costly rules are fitted only if they are among this many closest rules
FEW = 3  # number of closest library rules whose neighbours are fitted first
CLOSEST = 4  # number of rules from which a search continues
STARTS = {"first_start": (1e-6, 0.1, 1.0), "second_start": (1e-6, 0.1, 1.0)}
T = TypeVar("T")


class Attempt(NamedTuple):
    """A formula to try, and how it was derived."""

    formula: Formula
    edits: tuple[Edit, ...] = ()  # edits that lead to it from the rule at which the search starts
    library: str = ""  # name of the library rule that it equals or was derived from; "" for none


class Level(NamedTuple):
    """The number of rules tried at one level of a search, and whether the level was completed."""

    name: str
    forms: int
    complete: bool


class Budget:
    """A limit on the number of fits. Unlike a time limit, it gives the same result on every machine."""

    def __init__(self, fits: int) -> None:
        self.fits, self.used, self.exhausted = fits, 0, False
        self.levels: list[Level] = []

    def limit(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items, one fit each, until the budget is exhausted."""
        for item in items:
            if self.used >= self.fits:
                self.exhausted = True
                return
            self.used += 1
            yield item

    def matches(self, name: str, attempts: Iterable["Attempt"], target: Target, excluded: int = 0) -> list["Attempt"]:
        """Return the attempts of a level that reproduce the updates, and record the level.

        Args:
          name: the name of the level.
          attempts: the formulas to try.
          target: the updates to reproduce.
          excluded: number of further formulas that were already excluded by their first updates.
        """
        forms, matches = excluded, []
        for attempt in attempts:
            forms += 1
            if attempt.formula.hyper.eps < LARGEST_EPS and reproduces(attempt.formula, target):
                matches.append(attempt)
        self.levels.append(Level(name, forms, not self.exhausted))
        return matches


def search(
    target: Target, start: Formula, budget: Budget, loose_target: Target | None = None
) -> tuple[list[Attempt], bool]:
    """Return the formulas closest to `start` that reproduce the updates.

    Args:
      target: the updates to reproduce.
      start: the formula to start from.
      budget: limit on the number of fits. Rules that need no fit, such as those that differ in two choices and have no
        additional hyper-parameters, do not count.
      loose_target: the same updates with a larger bound, which is used only for rules close to the start.

    Returns:
      The formulas (several if they tie, none if the search fails), and True if they need the larger bound.
    """
    near: list[Attempt] = []
    switched: list[Attempt] = []
    for name, level in _near(target, start, budget):
        attempts = list(level)
        near += attempts
        if matches := switched + budget.matches(name, attempts, target):
            if not switched and name == NUMBERS and any(_differs(matches[0].formula, start, SWITCHES)):
                switched = matches
                continue
            return _simplest(matches, start, target), False
    if loose_target is not None and (
        matches := [attempt for attempt in near if reproduces(attempt.formula, loose_target)]
    ):
        return _simplest(matches, start, loose_target), True
    for name, level in _far(target, start, budget):
        if matches := budget.matches(name, level, target):
            return _simplest(matches, start, target), False
    return [], False


def identify_formula(target: Target, guess: Formula | None, budget: Budget) -> list[Attempt]:
    """Return formulas that reproduce the updates, starting from the closest library rules; [] if there are none.

    Args:
      target: the updates to reproduce.
      guess: a formula to try first, or None.
      budget: limit on the number of fits.
    """
    if guess is not None and reproduces(guess, target):
        return [Attempt(guess)]
    similar, count = similar_choices(target)
    attempts = [Attempt(choice.formula, choice.edits) for choice in similar]
    for attempt in attempts:
        if not attempt.edits and reproduces(attempt.formula, target):
            return [attempt]
    if matches := budget.matches(LIBRARY_CHOICES, attempts, target, excluded=count - len(attempts)):
        return matches[:1]
    for name, level, start in _identification(target, budget):
        if matches := budget.matches(name, level, target):
            return matches[:1] if start is None else _simplest(matches, start, target)
    return []


def _identification(target: Target, budget: Budget) -> Iterator[tuple[str, Iterable[Attempt], Formula | None]]:
    """Yield the name, attempts and start of each level: first around all library rules, then around the closest."""
    closest = _by_cost(budget.limit(_library(HyperParams(), target)), target)
    to_fit = [pair for i, pair in enumerate(closest[:EXACT]) if i < FIRST or not is_costly(pair[1].formula.rule)]
    yield LIBRARIES, (Attempt(fit(result.formula, target)) for result, _ in budget.limit(to_fit)), None
    libraries = [LIBRARY_RULES[attempt.library] for _, attempt in closest]
    for some in (libraries[:FEW], libraries[FEW:EXACT], libraries[EXACT:]):
        yield LIBRARY_CHOICES, _fitted_choices(some, target), None
    starts = [result.formula for result, _ in closest[:CLOSEST]]
    for levels in (_near, _far):  # near levels of all starts come first
        for start in starts:
            for name, level in levels(target, start, budget):
                yield name, level, start


def library_formula(target: Target, guess: Formula | None) -> Formula | None:
    """Return the guess or the first rule of `_library` that reproduces the updates, or None."""
    if guess is not None and reproduces(guess, target):
        return guess
    formulas = (attempt.formula for attempt in _library(HyperParams(), target))
    return next((formula for formula in formulas if reproduces(formula, target)), None)


def _near(target: Target, start: Formula, budget: Budget) -> Iterator[tuple[str, Iterable[Attempt]]]:
    """Yield the levels with at most one choice that differs from the start, and the library rules."""
    yield "the reference", [Attempt(start)]
    yield NUMBERS, (Attempt(fit(formula, target)) for formula in budget.limit([start]))
    yield "one other choice", _one_choice(target, start, budget)
    yield LIBRARIES, budget.limit(_library(start.hyper, target))
    yield "other initial moments", budget.limit(_other_starts(target, start))
    yield "other initial moments and one other choice", _start_and_choice(start)


def _far(target: Target, start: Formula, budget: Budget) -> Iterator[tuple[str, Iterable[Attempt]]]:
    """Yield the levels with two or three different choices, or with different hyper-parameters."""
    yield "two other choices", _two_choices(start)
    single_edits = [Attempt(with_usual_values(rule, start.hyper), edits) for edits, rule in neighbours(start.rule)]
    single_fits = _by_cost(budget.limit(single_edits), target)
    library_fits = _by_cost(budget.limit(_library(start.hyper, target)), target)
    yield f"{LIBRARIES} with other numbers", _fit_exactly(library_fits, target, budget)
    yield "one other choice and other numbers", _fit_exactly(single_fits, target, budget)
    pairs = _second_choices(_sorted([*single_fits, *library_fits]))
    while attempts := list(itertools.islice(budget.limit(pairs), ROUGH)):
        ranked = _by_cost(attempts, target)
        yield PAIRS, _fit_exactly(ranked, target, budget)
        yield TRIPLES, _third_choices(ranked[:CLOSEST])


def _one_choice(target: Target, start: Formula, budget: Budget) -> Iterator[Attempt]:
    """Yield the neighbours of the start; of those with additional hyper-parameters, only the closest after a fit."""
    known, to_fit = hyper_names(start.rule), []
    for edits, rule in budget.limit(neighbours(start.rule)):
        attempt = Attempt(with_usual_values(rule, start.hyper), edits)
        new = [name for name in free_names(attempt.formula) if name not in known]
        if new:
            to_fit.append((fit_roughly(attempt.formula, target, new), attempt, new))
        else:
            yield attempt
    for rough, attempt, new in sorted(to_fit, key=lambda row: row[0].cost)[:EXACT]:
        yield attempt._replace(formula=fit(rough.formula, target, new))


def _fitted_choices(libraries: list[Formula], target: Target) -> Iterator[Attempt]:
    """Fit the neighbours of library rules that have additional hyper-parameters, and yield the closest."""
    to_fit: list[tuple[Fit, Attempt, list[str]]] = []
    for start in libraries:
        for edits, rule in neighbours(start.rule):
            attempt = Attempt(with_usual_values(rule, start.hyper), edits)
            new = [name for name in free_names(attempt.formula) if name not in hyper_names(start.rule)]
            if new:
                names = ["learning_rate", *new]
                to_fit.append((fit_roughly(attempt.formula, target, names), attempt, names))
    for rough, attempt, names in sorted(to_fit, key=lambda row: row[0].cost)[:EXACT]:
        yield attempt._replace(formula=fit(rough.formula, target, names))


def _start_and_choice(start: Formula) -> Iterator[Attempt]:
    """Yield each neighbour with a usual initial value for one moment, without a fit."""
    for edits, rule in neighbours(start.rule):
        formula = with_usual_values(rule, start.hyper)
        for name, values in STARTS.items():
            if is_moments(rule) and getattr(rule, name.removesuffix("_start")) != "none":
                for value in (0.0, *values):
                    if value != getattr(start.hyper, name):
                        yield Attempt(formula._replace(hyper=formula.hyper._replace(**{name: value})), edits)


def _two_choices(start: Formula) -> Iterator[Attempt]:
    """Yield the rules with two edits that need no additional hyper-parameters."""
    seen = {rule for _, rule in neighbours(start.rule)}
    for first, middle in neighbours(start.rule):
        for second, rule in neighbours(middle):
            if rule not in seen and set(hyper_names(rule)) <= set(hyper_names(start.rule)) and _disjoint(first, second):
                seen.add(rule)
                yield Attempt(start._replace(rule=rule), (*first, *second))


def _second_choices(fits: Iterable[tuple[Fit, Attempt]]) -> Iterator[Attempt]:
    """Yield the neighbours of all attempts, with the hyper-parameters of the attempts before the fit."""
    seen = set()
    for _, (formula, first, library) in fits:
        for second, rule in neighbours(formula.rule):
            if rule not in seen and _disjoint(first, second):
                seen.add(rule)
                yield Attempt(with_usual_values(rule, formula.hyper), (*first, *second), library)


def _third_choices(pairs: Iterable[tuple[Fit, Attempt]]) -> Iterator[Attempt]:
    """Yield the neighbours of rules with two edits, without a fit."""
    for _, attempt in pairs:
        formula, edits, library = attempt
        for third, rule in neighbours(formula.rule):
            if _disjoint(edits, third):
                yield Attempt(with_usual_values(rule, formula.hyper), (*edits, *third), library)


def _disjoint(first: tuple[Edit, ...], second: tuple[Edit, ...]) -> bool:
    return not {edit.place for edit in first} & {edit.place for edit in second}


def _library(hyper: HyperParams, target: Target) -> Iterator[Attempt]:
    """Yield all distinct library rules with default values and a fitted learning rate; named rules also unfitted."""
    seen = set()
    for name, formula in LIBRARY_RULES.items():
        if formula in seen:
            continue
        seen.add(formula)
        if not is_moments(formula.rule):
            yield Attempt(formula, library=name)  # its learning rate may do more than scale the updates
        start = formula._replace(hyper=formula.hyper._replace(learning_rate=hyper.learning_rate))
        yield Attempt(fit_learning_rate(start, target), library=name)


def _other_starts(target: Target, start: Formula) -> Iterator[Attempt]:
    """Yield fits of the rule with a nonzero initial value for one moment."""
    for name, values in STARTS.items():
        if not is_moments(start.rule) or getattr(start.rule, name.removesuffix("_start")) == "none":
            continue
        for value in values:
            formula = start._replace(hyper=start.hyper._replace(**{name: value}))
            yield Attempt(fit(formula, target, [name]))
            yield Attempt(fit(formula, target, [*free_names(formula), name]))


def _by_cost(attempts: Iterable[Attempt], target: Target) -> list[tuple[Fit, Attempt]]:
    """Fit all attempts roughly, and sort them by cost, closest first."""
    return _sorted([(fit_roughly(attempt.formula, target), attempt) for attempt in attempts])


def _sorted(fits: list[tuple[Fit, Attempt]]) -> list[tuple[Fit, Attempt]]:
    return sorted(fits, key=lambda pair: pair[0].cost)


def _fit_exactly(fits: list[tuple[Fit, Attempt]], target: Target, budget: Budget) -> Iterator[Attempt]:
    """Yield the closest rules after an exact fit."""
    to_fit = [pair for i, pair in enumerate(fits[:EXACT]) if i < FIRST or not is_costly(pair[1].formula.rule)]
    for rough, attempt in budget.limit(to_fit):
        yield attempt._replace(formula=fit(rough.formula, target))


def _simplest(matches: list[Attempt], start: Formula, target: Target) -> list[Attempt]:
    """Return the matches and ties with the fewest differences from the start, each rule once.

    If any of these differs in hyper-parameters, matches with one more difference are also returned, because the
    additional choice may explain the different numbers.
    """
    same_family = [match for match in matches if type(match.formula.rule) is type(start.rule)]
    if not same_family:
        return matches[:1]  # a different family is one cause, so its variants are not reported
    matches = [match._replace(formula=_simplify(match.formula, start, target)) for match in same_family]
    ties = [tie for match in matches for tie in _ties(match, target)]
    ties += [tie for match in ties for tie in _ties(match, target, "decay")]
    first: dict[Any, Attempt] = {}
    for attempt in (*matches, *ties):
        first.setdefault(attempt.formula.rule, attempt)
    sizes = {rule: _difference_count(attempt.formula, start) for rule, attempt in first.items()}
    fewest = min(sizes.values())
    rules = [rule for rule, size in sizes.items() if size == fewest]
    if any(_differing_numbers(first[rule].formula, start) for rule in rules):
        rules += [match.formula.rule for match in matches if sizes[match.formula.rule] == fewest + 1]
    return [first[rule] for rule in dict.fromkeys(rules)]


def _simplify(formula: Formula, start: Formula, target: Target) -> Formula:
    """Reset every choice and hyper-parameter to its value in `start` if the updates stay the same."""
    for place, choice in [("decay", "none"), *zip(start.rule._fields, start.rule, strict=True)]:
        if place == "decay" and formula.rule.decay == "none":
            continue  # do not restore weight decay, because a tiny one would fit a rule without any
        candidate = formula._replace(rule=formula.rule._replace(**{place: choice}))
        if candidate != formula and reproduces(candidate, target):
            formula = candidate
    for name in HyperParams._fields:
        candidate = formula._replace(hyper=formula.hyper._replace(**{name: getattr(start.hyper, name)}))
        if candidate != formula and reproduces(candidate, target):
            formula = candidate
    return formula


def _ties(match: Attempt, target: Target, place: str = "") -> Iterator[Attempt]:
    """Yield the neighbours that produce the same updates; `place` restricts them to changes at one place."""
    for edits, rule in neighbours(match.formula.rule):
        if hyper_names(rule) != hyper_names(match.formula.rule) or place not in ("", edits[0].place):
            continue
        formula = _convert_decay(match.formula, rule)
        names = [name for name in COMPENSATION.get(edits[0].place, []) if name in free_names(formula)]
        formula = fit(formula, target, names) if names else formula
        if reproduces(formula, target):
            yield match._replace(formula=formula)


def _convert_decay(formula: Formula, rule: Any) -> Formula:
    """Return the rule with an equivalent weight decay if only one of the rules multiplies it by the learning rate."""
    hyper, kinds = formula.hyper, (formula.rule.decay, rule.decay)
    if kinds[0] != kinds[1] and "without rate" in kinds:
        factor = hyper.learning_rate if rule.decay == "without rate" else 1 / hyper.learning_rate
        hyper = hyper._replace(weight_decay=hyper.weight_decay * factor)
    return Formula(rule, hyper)


def _difference_count(formula: Formula, start: Formula) -> int:
    """Return the number of different choices and hyper-parameters; the same change to both moments counts once."""
    places = {edit.place for edit in edits_between(start.rule, formula.rule)}
    pairs = sum(first in places and second in places for first, second in BOTH_MOMENTS.items())
    return len(places) - pairs + _differing_numbers(formula, start)


def _differs(formula: Formula, start: Formula, names: Iterable[str]) -> Iterator[bool]:
    return (getattr(formula.hyper, name) != getattr(start.hyper, name) for name in names)


def _differing_numbers(formula: Formula, start: Formula) -> int:
    return sum(a != b for a, b in zip(formula.hyper, start.hyper, strict=True))
