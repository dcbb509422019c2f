"""Choose the simplest of the rules that reproduce recorded updates, and find the rules that tie with it."""

import functools
from collections.abc import Iterator
from typing import Any

from nnjax.optcheck.rules.families import edits_between, hyper_names, is_moments, neighbours
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES
from nnjax.optcheck.rules.neighbours import BOTH_MOMENTS, READ, is_duplicate, is_redundant, without_idle_choices
from nnjax.optcheck.rules.update_rule import GRADIENT_DECAY, STARTS, Formula, HyperParams, UpdateRule
from nnjax.optcheck.search.budget import Attempt
from nnjax.optcheck.search.fitting import Target, reproduces, shorten

SWITCHES = ("clip", "floor")  # large values have the effect of a rule without the choice
FEW_DIGITS = 2  # a usual hyper-parameter, or 1 minus it, has at most this many significant digits
OTHER_RULE = 2  # complexity of a rule that a library has, however many choices differ
MANY_DIGITS = 4  # with more digits, a hyper-parameter probably compensates for a different choice


def simplest(matches: list[Attempt], start: Formula, target: Target) -> list[Attempt]:
    """Return the matches and ties with the fewest differences from the start, each rule once.

    If any of these differs in hyper-parameters, matches with one more difference are also returned, because the
    additional choice may explain the different numbers.
    """
    same_family = [match for match in matches if type(match.formula.rule) is type(start.rule)]
    if not same_family:
        return matches[:1]  # a different family is one cause, so its variants are not reported
    same_family += [form for match in same_family for form in _library_forms(match, target)]
    matches = [match._replace(formula=_simplify(match.formula, start, target)) for match in same_family]
    if is_moments(start.rule):
        matches = [match for match in matches if not _is_redundant(match, start)] or matches
    matches += [plainer for match in matches for plainer in _without_odd_numbers(match, start, target)]
    ties = [tie for match in matches for tie in _ties(match, target)]
    ties += [tie for match in ties for tie in _ties(match, target, "decay")]
    ties += [tie for match in matches for tie in _without_constants(match, target)]
    ties = [_with_idle_numbers(tie, start) for tie in ties if not _is_redundant(tie, start)]
    ties = [tie for tie in ties if not _is_one_duplicate(tie.formula.rule, start.rule)]
    first: dict[Any, Attempt] = {}
    for attempt in sorted((*matches, *ties), key=lambda attempt: _plainness(attempt.formula, start)):
        first.setdefault(attempt.formula.rule, attempt)
    sizes = {rule: complexity(attempt.formula, start) for rule, attempt in first.items()}
    fewest = min(sizes.values())
    rules = [rule for rule, size in sizes.items() if size == fewest]
    plainest = next(iter(first.values())).formula
    if is_library_rule(plainest, start):  # more choices, such as λ inside the velocity, add nothing
        count = len(edits_between(start.rule, plainest.rule))
        rules = [rule for rule in rules if len(edits_between(start.rule, rule)) == count]
    if any(_differing(first[rule].formula, start) for rule in rules):
        rules += [match.formula.rule for match in matches if sizes[match.formula.rule] == fewest + 1]
    return [first[rule] for rule in dict.fromkeys(rules)]


def _plainness(formula: Formula, start: Formula) -> tuple[float, bool, int]:
    """Return a sort key that prefers few differences, rules of libraries, and few choices.

    In the number of choices, the same change to both moments counts twice.
    """
    edits = edits_between(start.rule, formula.rule)
    return complexity(formula, start), not is_library_rule(formula, start), len(edits)


def _is_redundant(match: Attempt, start: Formula) -> bool:
    rule = match.formula.rule
    return is_moments(rule) and rule != start.rule and is_redundant(match.formula)


def _is_one_duplicate(rule: Any, start: Any) -> bool:
    """Return True if a rule differs from the start in one choice that has the same effect as a different choice."""
    edits = edits_between(start, rule)
    return is_moments(rule) and len(edits) == 1 and is_duplicate(edits[0], start)


def plain(match: Attempt, target: Target) -> Attempt:
    """Return a library rule with other numbers that produces the same updates, or the match if there is none."""
    if not match.edits or not is_moments(match.formula.rule):
        return match
    for name, library in LIBRARY_RULES.items():
        if is_moments(library.rule) and hyper_names(library.rule) == hyper_names(match.formula.rule):
            formula = _compensate(match.formula, library.rule)
            if reproduces(formula, target):
                return Attempt(formula, library=name)
    return match


def _library_forms(match: Attempt, target: Target) -> Iterator[Attempt]:
    """Yield library rules with the numbers of a match that produce the same updates.

    A velocity of gradients is the same as a first moment alone, so each takes the decay rate of the other.
    """
    rule, hyper = match.formula
    if not is_moments(rule):
        return
    names = set(hyper_names(rule))
    if "momentum" not in names:
        hyper = hyper._replace(momentum=hyper.b1)
    elif "b1" not in names:
        hyper = hyper._replace(b1=hyper.momentum)
    names |= {"b1", "momentum"} if names & {"b1", "momentum"} else set()
    for name, library in LIBRARY_RULES.items():
        if is_moments(library.rule) and library.rule != rule and set(hyper_names(library.rule)) <= names:
            formula = _compensate(Formula(rule, hyper), library.rule)
            if reproduces(formula, target):
                yield Attempt(formula, library=name)


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


def _without_odd_numbers(match: Attempt, start: Formula, target: Target) -> Iterator[Attempt]:
    """Yield neighbours that produce the same updates with the start's value of a number that has many digits."""
    if not is_moments(match.formula.rule):
        return
    for name in _differing(match.formula, start):
        if digits_of(float(getattr(match.formula.hyper, name))) > FEW_DIGITS:
            hyper = match.formula.hyper._replace(**{name: getattr(start.hyper, name)})
            for _, rule in neighbours(match.formula.rule):
                formula = Formula(rule, hyper)
                if set(hyper_names(rule)) <= set(hyper_names(match.formula.rule)) and reproduces(formula, target):
                    yield match._replace(formula=formula)


def _without_constants(match: Attempt, target: Target) -> Iterator[Attempt]:
    """Yield the match with decaying sums and no bias correction instead of averages that are divided by constants."""
    rule = match.formula.rule
    if not is_moments(rule):
        return
    for first, second in ((True, True), (True, False), (False, True)):
        plain = rule
        if first and (rule.first, rule.first_correction) == ("ema", "constant"):
            plain = plain._replace(first="trace", first_correction="none")
        if second and (rule.second, rule.second_correction) == ("ema", "constant"):
            plain = plain._replace(second="trace", second_correction="none")
        formula = _compensate(match.formula, plain)
        if plain != rule and reproduces(formula, target):
            yield match._replace(formula=formula)


def _with_idle_numbers(match: Attempt, start: Formula) -> Attempt:
    """Return the match with the start's values of hyper-parameters that its rule does not use."""
    rule, hyper = match.formula
    idle = set(_differing(match.formula, start)) - {*hyper_names(rule), *STARTS, "eps_root", "eps_state"}
    values = {name: getattr(start.hyper, name) for name in idle - {"momentum_decay"}}
    return match._replace(formula=Formula(rule, hyper._replace(**values)))


def _ties(match: Attempt, target: Target, place: str = "") -> Iterator[Attempt]:
    """Yield the neighbours that produce the same updates; `place` restricts them to changes at one place.

    Neighbours may need fewer hyper-parameters: an ε that is too small to be observed ties with no ε at all.
    """
    for edits, rule in neighbours(match.formula.rule):
        if not set(hyper_names(rule)) <= set(hyper_names(match.formula.rule)) or place not in ("", edits[0].place):
            continue
        if edits[0].place == "schedule" and {edits[0].old, edits[0].new} <= {
            *READ
        }:  # without a schedule, all steps read the same rate
            continue
        formula = _compensate(match.formula, rule) if is_moments(rule) else match.formula._replace(rule=rule)
        if reproduces(formula, target):
            yield match._replace(formula=formula)


def _compensate(formula: Formula, rule: Any) -> Formula:
    """Return a rule with the numbers that keep the updates, if the rules differ by constant factors of the moments."""
    hyper = formula.hyper
    if 1.0 in (hyper.b1, hyper.b2, hyper.momentum) or rule.root == "multiplied":
        return Formula(rule, hyper)
    old, new = _factors(formula.rule, hyper), _factors(rule, hyper)
    m, v = (y / x for x, y in zip(old, new, strict=True))
    root = v ** {"none": 1, "sqrt": 1 / 2, "twice": 1 / 4, "cube": 1 / 3}[rule.root] if rule.second != "none" else 1.0
    rate = shorten(float(hyper.learning_rate * root / m))
    decay = hyper.weight_decay
    if not {formula.rule.decay, rule.decay} <= set(GRADIENT_DECAY):
        decay *= hyper.learning_rate if formula.rule.decay != "without rate" else 1.0
        decay /= rate if rule.decay != "without rate" else 1.0
    eps = hyper.eps * (v if "inside" in rule.eps else root)
    if decay != hyper.weight_decay:
        hyper = hyper._replace(weight_decay=shorten(float(decay)))
    return Formula(rule, hyper._replace(learning_rate=rate, eps=shorten(float(eps)) if eps != hyper.eps else eps))


def _factors(rule: Any, hyper: HyperParams) -> tuple[float, float]:
    """Return the constant factors of the first moment with the velocity, and of the second moment."""
    b1, b2 = hyper.b1, hyper.b2
    m = _weight(rule.first, b1, b2) / (1 - b1 if rule.first_correction == "constant" else 1.0)
    v = _weight(rule.second, b2, b1) / (1 - b2 if rule.second_correction == "constant" else 1.0)
    return m * _weight(rule.velocity, hyper.momentum), v


def _weight(choice: str, rate: float, other: float = 0.0) -> float:
    """Return the weight of the new term in a moment or velocity that decays with a rate.

    Args:
      choice: the choice for the moment or velocity.
      rate: its decay rate.
      other: the decay rate of the other moment.
    """
    weights = {
        "ema": 1 - rate,
        "both": rate,
        "both average": rate * (1 - rate),
        "mixed": 1 - other,
    }
    return weights.get(choice, 1.0)


def complexity(formula: Formula, start: Formula) -> float:
    """Return the number of differences from the start. Unusual numbers and switches count more than once.

    Many differences that together are the rule of a library count as one other rule: an optimizer that everybody knows
    is a plainer explanation than a few mistakes that happen to have the same effect.
    """
    if type(formula.rule) is not type(start.rule):
        return OTHER_RULE
    return min(_mistakes(formula, start), library_complexity(formula, start))


def is_library_rule(formula: Formula, start: Formula) -> bool:
    """Return True if a formula is plainest as the rule of a library, see `complexity`."""
    return library_complexity(formula, start) <= _mistakes(formula, start)


def _mistakes(formula: Formula, start: Formula) -> int:
    """Return the number of differences from the start, where unusual numbers and switches count more than once."""
    changed = _differing(formula, start)
    return _difference_count(formula, start) + _odd(formula, changed) + sum(name in SWITCHES for name in changed)


def library_complexity(formula: Formula, start: Formula) -> float:
    """Return the complexity of the rule of a library: the rule, its numbers, and unusual digits; ∞ for other rules.

    The learning rate counts only if it is unusual, because every user chooses it.
    """
    rule, hyper = formula
    if not is_moments(rule):
        return float("inf")
    names = [*hyper_names(rule)[1:], *STARTS, "eps_root", "eps_state", "momentum_decay"]  # without the learning rate
    counts = [float("inf")]
    for library in _library_hypers().get(plain_rule(rule), ()):
        changed = [name for name in names if getattr(hyper, name) != getattr(library, name)]
        rate = [] if hyper.learning_rate == start.hyper.learning_rate else ["learning_rate"]
        counts.append(OTHER_RULE + len(changed) + _odd(formula, [*changed, *rate]))
    return min(counts)


def plain_rule(rule: UpdateRule) -> UpdateRule:
    """Return the rule without choices that do not affect its updates, in the form of a library if one has it."""
    tidy = without_idle_choices(rule)
    return next((known for known in _library_hypers() if without_idle_choices(known) == tidy), tidy)


@functools.cache
def _library_hypers() -> dict[UpdateRule, list[HyperParams]]:
    """Return the hyper-parameters with which libraries have each rule of moments."""
    hypers: dict[UpdateRule, list[HyperParams]] = {}
    for rule, hyper in LIBRARY_RULES.values():
        if is_moments(rule):
            hypers.setdefault(rule, []).append(hyper)
    return hypers


def unusual_choices(rule: Any) -> int:
    """Return the number of choices that no library makes.

    The kind of weight decay does not count, because several kinds are usual, and inputs without a schedule do not show
    which.
    """
    if not is_moments(rule):
        return 0
    rule = rule._replace(decay="none")
    return sum(choice not in usual for choice, usual in zip(rule, _library_choices(), strict=True))


@functools.cache
def _library_choices() -> list[set[str]]:
    """Return the choices of libraries at each place of a rule."""
    return [set(choices) for choices in zip(*_library_hypers(), strict=True)]


def _odd(formula: Formula, names: list[str]) -> int:
    """Return how much hyper-parameters with many digits add to the complexity."""
    digits = [digits_of(float(getattr(formula.hyper, name))) for name in names]
    return sum((count > FEW_DIGITS) + (count > MANY_DIGITS) for count in digits)


def compensates(formula: Formula, start: Formula) -> bool:
    """Return True if a changed hyper-parameter has more than MANY_DIGITS digits.

    Nobody would set such a value, so it probably compensates for a different choice of the rule.
    """
    pairs = zip(formula.hyper, start.hyper, strict=True)
    return any(a != b and digits_of(float(a)) > MANY_DIGITS for a, b in pairs)


def digits_of(number: float) -> int:
    """Return the number of significant digits of a hyper-parameter, or of 1 minus a fraction if fewer, up to 8."""

    def count(value: float) -> int:
        return len(f"{abs(value):.7e}".partition("e")[0].rstrip("0").replace(".", ""))

    return min(count(number), count(1 - number)) if 0 < number < 1 else count(number)


def _difference_count(formula: Formula, start: Formula) -> int:
    """Return the number of different choices and hyper-parameters.

    The same change to both moments counts once. Division of one moment by a constant counts twice, because it has the
    effect of no correction of a decaying sum.
    """
    changes = {edit.place: edit.new for edit in edits_between(start.rule, formula.rule)}
    pairs = sum(changes.get(first) == changes.get(second, "") for first, second in BOTH_MOMENTS.items())
    constants = list(changes.values()).count("constant")
    return len(changes) - pairs + (constants == 1) + len(_differing(formula, start))


def _differing(formula: Formula, start: Formula) -> list[str]:
    """Return the names of the hyper-parameters that differ from the start."""
    return [name for name in HyperParams._fields if getattr(formula.hyper, name) != getattr(start.hyper, name)]
