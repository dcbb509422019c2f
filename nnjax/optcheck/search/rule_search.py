"""Search for update rules that reproduce recorded updates, from a rule to its neighbours, closest first."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from nnjax.optcheck.rules.families import (
    hyper_names,
    is_costly,
    is_moments,
    neighbours,
    with_usual_values,
)
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES
from nnjax.optcheck.rules.neighbours import Edit
from nnjax.optcheck.rules.update_rule import STARTS, Formula, HyperParams
from nnjax.optcheck.search.budget import Attempt, Budget
from nnjax.optcheck.search.few_differences import few_differences, one_number
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
from nnjax.optcheck.search.simplest import compensates, complexity, plain, simplest

ROUGH = 100  # pairs of choices that are fitted roughly at a time
EXACT = 12  # of the rules that were fitted roughly, the closest ones that are fitted exactly
LIBRARY_CHOICES = "library rules with one other choice"
LIBRARIES, PAIRS = "library rules", "two other choices and other numbers"  # names of levels
TRIPLES, NUMBERS = "three other choices", "the reference with other numbers"
TWO, THREE = "two other choices or usual numbers", "three other choices or usual numbers"
TRIED = {TWO: 2, THREE: 1}  # without a reference, number of closest rules around which these levels are tried
FITS_OF_THREE = 300  # number of fits that take as long as the level of three choices without a fit
FIRST = 2  # costly rules are fitted only if they are among this many closest rules
FEW = 3  # number of closest library rules whose neighbours are fitted first
CLOSEST = 4  # number of rules from which a search continues
START_VALUES = (0.0, 1e-6, 0.1, 1.0)  # usual initial values of moments and velocities


class Stage(NamedTuple):
    """A level of the search before it is run."""

    name: str
    least: int  # complexity of its simplest formula, see `complexity`
    fits: bool  # True if it fits numbers, which is skipped if formulas without a fit were found
    attempts: Iterable[Attempt | None]
    near: bool = True  # False if more than one choice differs from the start


def search(
    target: Target,
    start: Formula,
    budget: Budget,
    loose_target: Target | None = None,
    explained: Callable[[], bool] = lambda: False,
) -> tuple[list[Attempt], bool]:
    """Return the formulas closest to `start` that reproduce the updates.

    Args:
      target: the updates to reproduce.
      start: the formula to start from.
      budget: limit on the number of fits. Rules that need no fit, such as those that differ in two choices and have no
        additional hyper-parameters, do not count.
      loose_target: the same updates with a larger bound, which is used only for rules with at most one difference,
        because several would also imitate others within this bound.
      explained: called before rules with several choices are fitted, which takes longest; True ends the search.

    Returns:
      The formulas (several if they tie, none if the search fails), and True if they need the larger bound.
    """
    best: list[Attempt] = []
    loose: list[Attempt] = []
    for stage in _stages(target, start, budget, explained):
        if best:
            least_of_best = complexity(best[0].formula, start)
            if least_of_best <= stage.least or (stage.least > 2 and not compensates(best[0].formula, start)):
                return best, False
            if stage.fits:
                continue
        elif loose and complexity(loose[0].formula, start) + 1 < stage.least:
            return loose, True
        attempts = list(stage.attempts) if stage.near else stage.attempts
        if matches := budget.matches(stage.name, attempts, target):
            best = simplest([*best, *matches], start, target)
        if stage.near and loose_target is not None and not best:
            rounded = [attempt for attempt in attempts if attempt and reproduces(attempt.formula, loose_target)]
            loose = simplest([*loose, *rounded], start, loose_target) if rounded else loose
            loose = [attempt for attempt in loose if complexity(attempt.formula, start) <= 1]
    return (best, False) if best else (loose, bool(loose))


def identify_formula(target: Target, guess: Formula | None, budget: Budget) -> list[Attempt]:
    """Search for formulas that reproduce the updates: the guess, then neighbours of the closest library rules.

    Return [] if no formula does.

    Args:
      target: the updates to reproduce.
      guess: a formula to try first, or None.
      budget: limit on the number of fits.
    """
    if guess is not None:
        for attempt in _with_other_numbers(guess, target):
            if reproduces(attempt.formula, target):
                return [attempt]
    similar, count = similar_choices(target)
    exact = [Attempt(choice.formula) for choice in similar if not choice.edits]
    if matches := budget.matches(LIBRARIES, exact, target):
        return matches[:1]
    attempts = [Attempt(choice.formula, choice.edits) for choice in similar if choice.edits]
    if matches := budget.matches(LIBRARY_CHOICES, attempts, target, excluded=count - len(similar)):
        return [plain(matches[0], target)]
    for name, level, start in _identification(target, budget):
        if matches := budget.matches(name, level, target):
            return matches[:1] if start is None else simplest(matches, start, target)
    return []


def _identification(target: Target, budget: Budget) -> Iterator[tuple[str, Iterable[Attempt | None], Formula | None]]:
    """Yield the name, attempts and start of each level: first around all library rules, then around the closest."""
    closest = _by_cost(budget.limit(_library(HyperParams(), target)), target)
    to_fit = [pair for i, pair in enumerate(closest[:EXACT]) if i < FIRST or not is_costly(pair[1].formula.rule)]
    yield LIBRARIES, (Attempt(fit(result.formula, target)) for result, _ in budget.limit(to_fit)), None
    libraries = [LIBRARY_RULES[attempt.library] for _, attempt in closest]
    for some in (libraries[:FEW], libraries[FEW:EXACT], libraries[EXACT:]):
        yield LIBRARY_CHOICES, _fitted_choices(some, target), None
    starts = [result.formula for result, _ in closest[:CLOSEST]]
    for near in (True, False):  # near levels of all starts come first
        for start in starts:
            for stage in _stages(target, start, budget):
                if stage.near == near and start in starts[: TRIED.get(stage.name, CLOSEST)]:
                    yield stage.name, stage.attempts, start


def library_formula(target: Target, guess: Formula | None) -> Formula | None:
    """Return the guess or the first rule of `_library` that reproduces the updates, or None."""
    if guess is not None and reproduces(guess, target):
        return guess
    formulas = (attempt.formula for attempt in _library(HyperParams(), target))
    return next((formula for formula in formulas if reproduces(formula, target)), None)


def _stages(
    target: Target, start: Formula, budget: Budget, explained: Callable[[], bool] = lambda: False
) -> Iterator[Stage]:
    """Yield the levels of the search around a start, simplest first."""
    yield Stage("the reference", 0, False, [Attempt(start)])
    yield Stage("the reference with one usual number", 1, False, _one_number(start, target))
    yield Stage(NUMBERS, 1, True, (Attempt(fit(formula, target)) for formula in budget.limit([start])))
    yield Stage("one other choice", 1, False, _one_choice(target, start, budget))
    yield Stage(LIBRARIES, 2, False, budget.limit(_library(start.hyper, target)))
    yield Stage("other initial moments", 1, True, budget.limit(_other_starts(target, start)))
    yield Stage("other initial moments and one other choice", 2, False, _start_and_choice(start))
    yield Stage(TWO, 2, False, _few_differences(target, start, 2), near=False)
    if is_moments(start.rule) and budget.take(FITS_OF_THREE):
        yield Stage(THREE, 3, False, _few_differences(target, start, 3), near=False)
    single_edits = [Attempt(with_usual_values(rule, start.hyper), edits) for edits, rule in neighbours(start.rule)]
    single_fits: list[tuple[Fit, Attempt]] = []
    library_fits: list[tuple[Fit, Attempt]] = []

    def fit_all(attempts: Iterable[Attempt], fits: list[tuple[Fit, Attempt]]) -> Iterator[Attempt]:
        fits += _by_cost(budget.limit(attempts), target)
        yield from _fit_exactly(fits, target, budget)

    library = fit_all(_library(start.hyper, target), library_fits)
    yield Stage(f"{LIBRARIES} with other numbers", 3, True, library, near=False)
    single = fit_all(single_edits, single_fits)
    yield Stage("one other choice and other numbers", 3, True, single, near=False)
    if explained():
        return
    pairs = _second_choices(_sorted([*single_fits, *library_fits]))
    while attempts := list(itertools.islice(budget.limit(pairs), ROUGH)):
        ranked = _by_cost(attempts, target)
        yield Stage(PAIRS, 4, True, _fit_exactly(ranked, target, budget), near=False)
        yield Stage(TRIPLES, 4, True, _third_choices(ranked[:CLOSEST]), near=False)


def _one_number(start: Formula, target: Target) -> Iterator[Attempt]:
    """Yield the start with a fitted learning rate, and with usual values of other numbers, without a fit."""
    yield Attempt(fit_learning_rate(start, target))
    for formula in one_number(start) if is_moments(start.rule) else ():
        yield Attempt(formula)


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
        for name in STARTS:
            if is_moments(rule) and getattr(rule, name.removesuffix("_start")) != "none":
                for value in START_VALUES:
                    if value != getattr(start.hyper, name):
                        yield Attempt(formula._replace(hyper=formula.hyper._replace(**{name: value})), edits)


def _few_differences(target: Target, start: Formula, count: int) -> Iterator[Attempt | None]:
    """Yield the rules that differ from the start in exactly `count` choices or numbers.

    For a named rule, two choices are changed and the numbers are kept; for count = 3 nothing is yielded.
    """
    if is_moments(start.rule):
        for found in few_differences(target, start, count):
            yield found and Attempt(*found)
        return
    seen = {rule for _, rule in neighbours(start.rule)}
    for first, middle in neighbours(start.rule) if count == 2 else ():
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


def _with_other_numbers(guess: Formula, target: Target) -> Iterator[Attempt]:
    """Yield the guess, the same rule with fitted numbers, and with other initial values."""
    yield Attempt(guess)
    yield Attempt(fit(guess, target))
    yield from _other_starts(target, guess)


def _other_starts(target: Target, start: Formula) -> Iterator[Attempt]:
    """Yield fits of the rule with a nonzero initial value for one moment."""
    for name in STARTS:
        if not is_moments(start.rule) or getattr(start.rule, name.removesuffix("_start")) == "none":
            continue
        for value in START_VALUES[1:]:
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
