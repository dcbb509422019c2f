"""Choose the simplest of the rules that reproduce recorded updates, and find the rules that tie with it."""

from collections.abc import Iterator
from typing import Any

from nnjax.optcheck.rules.families import edits_between, hyper_names, is_moments, neighbours
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES
from nnjax.optcheck.rules.neighbours import BOTH_MOMENTS, READ, is_redundant
from nnjax.optcheck.rules.update_rule import GRADIENT_DECAY, Formula, HyperParams
from nnjax.optcheck.search.budget import Attempt
from nnjax.optcheck.search.fitting import Target, reproduces, shorten

SWITCHES = ("clip", "floor")  # large values have the effect of a rule without the choice
FEW_DIGITS = 2  # a usual hyper-parameter, or 1 minus it, has at most this many significant digits
MANY_DIGITS = 4  # with more digits, a hyper-parameter probably compensates for a different choice


def simplest(matches: list[Attempt], start: Formula, target: Target) -> list[Attempt]:
    """Return the matches and ties with the fewest differences from the start, each rule once.

    If any of these differs in hyper-parameters, matches with one more difference are also returned, because the
    additional choice may explain the different numbers.
    """
    same_family = [match for match in matches if type(match.formula.rule) is type(start.rule)]
    if not same_family:
        return matches[:1]  # a different family is one cause, so its variants are not reported
    matches = [match._replace(formula=_simplify(match.formula, start, target)) for match in same_family]
    if is_moments(start.rule):
        matches = [match for match in matches if not is_redundant(match.formula)] or matches
    ties = [tie for match in matches for tie in _ties(match, target)]
    ties += [tie for match in ties for tie in _ties(match, target, "decay")]
    first: dict[Any, Attempt] = {}
    for attempt in sorted((*matches, *ties), key=lambda attempt: _plainness(attempt.formula, start)):
        first.setdefault(attempt.formula.rule, attempt)
    sizes = {rule: complexity(attempt.formula, start) for rule, attempt in first.items()}
    fewest = min(sizes.values())
    rules = [rule for rule, size in sizes.items() if size == fewest]
    if any(_differing_numbers(first[rule].formula, start) for rule in rules):
        rules += [match.formula.rule for match in matches if sizes[match.formula.rule] == fewest + 1]
    return [first[rule] for rule in dict.fromkeys(rules)]


def _plainness(formula: Formula, start: Formula) -> tuple[int, int]:
    """Return the number of differences, and of choices, where the same change to both moments counts twice."""
    return complexity(formula, start), len(edits_between(start.rule, formula.rule))


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
    b1, b2, mu = hyper.b1, hyper.b2, hyper.momentum
    m = {"ema": 1 - b1, "both": b1}.get(rule.first, 1.0) / (1 - b1 if rule.first_correction == "constant" else 1.0)
    v = {"ema": 1 - b2, "both": b2}.get(rule.second, 1.0) / (1 - b2 if rule.second_correction == "constant" else 1.0)
    return m * {"ema": 1 - mu, "both": mu}.get(rule.velocity, 1.0), v


def complexity(formula: Formula, start: Formula) -> int:
    """Return the number of differences from the start. Unusual numbers and switches count more than once."""
    if type(formula.rule) is not type(start.rule):
        return 2
    changed = [name for name in HyperParams._fields if getattr(formula.hyper, name) != getattr(start.hyper, name)]
    digits = [digits_of(float(getattr(formula.hyper, name))) for name in changed]
    odd = sum((count > FEW_DIGITS) + (count > MANY_DIGITS) for count in digits)
    return _difference_count(formula, start) + odd + sum(name in SWITCHES for name in changed)


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
    """Return the number of different choices and hyper-parameters; the same change to both moments counts once."""
    changes = {edit.place: edit.new for edit in edits_between(start.rule, formula.rule)}
    pairs = sum(changes.get(first) == changes.get(second, "") for first, second in BOTH_MOMENTS.items())
    return len(changes) - pairs + _differing_numbers(formula, start)


def _differing_numbers(formula: Formula, start: Formula) -> int:
    return sum(a != b for a, b in zip(formula.hyper, start.hyper, strict=True))
