"""Explain why two optimizers differ: find their formulas, measure the difference, and list what was not observed."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from nnjax.optcheck.reading.difference import Line, certain_lines
from nnjax.optcheck.rules.families import hyper_names, is_moments, neighbours, sentence, update_array
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES
from nnjax.optcheck.rules.neighbours import Edit, is_rare
from nnjax.optcheck.rules.update_rule import Formula, Inputs
from nnjax.optcheck.search.budget import Attempt, Budget, Level
from nnjax.optcheck.search.causes import (
    BOTH_PRECISIONS,
    PRECISION,
    REFERENCE_PRECISION,
    Cause,
    causes_of,
    causes_of_lines,
    hyper_name,
)
from nnjax.optcheck.search.fitting import DECAY_RATES, Target, largest_error, reproduces, share_within
from nnjax.optcheck.search.rule_search import identify_formula, library_formula, search
from nnjax.optcheck.search.simplest import (
    FEW_DIGITS,
    digits_of,
    is_library_rule,
    library_complexity,
    plain_rule,
    unusual_choices,
)
from nnjax.optcheck.trace.gradient_script import GradientScript, gradient_script, rule_inputs
from nnjax.optcheck.trace.observations import Observation, Pass, elements_of
from nnjax.optcheck.trace.tolerance import EPS, rounding_bound, tolerance, within
from nnjax.optcheck.trace.traces import Trace, trace_inputs

SINGLE = 2e-6  # allowed relative error of a float64 update in which one number was rounded to float32
MAX_FITS = 1200  # default number of rules to fit, which takes up to a minute


class Explanation(NamedTuple):
    """A formula that produces the candidate's updates."""

    formula: Formula
    causes: tuple[Cause, ...]  # differences from the reference; () if the reference is unknown
    error: float  # largest relative difference from the candidate's updates
    library: str  # name of the library rule that it equals or comes from; "" if there is none or it is the reference's
    runner_up: str = ""  # description of the next best formula, with the share of updates that it reproduces
    synonyms: tuple[tuple[Cause, ...], ...] = ()  # causes of equivalent formulas, which are equal for all gradients


class Diagnosis(NamedTuple):
    """The explanation of why two optimizers differ."""

    reference: Formula | None = None  # None if the reference is unknown
    explanations: tuple[Explanation, ...] = ()  # several if they tie; () if the cause is unknown
    remark: str = ""  # the size of the search, or the reason why there was no search
    complete: bool = True  # False if max_fits ended the search
    levels: tuple[Level, ...] = ()  # number of rules tried at each level of the search
    impact: str = ""  # how much updates differ on ordinary gradients
    not_observed: tuple[str, ...] = ()  # what could differ without changing these updates
    refuted: int = 0  # number of rules that reproduce the first script, but not the second
    lines: tuple[Line, ...] = ()  # equations read from what the candidate stores, if no rule explains the difference
    partial: bool = False  # True if `lines` are only some of the equations, so they are no causes

    @property
    def causes(self) -> tuple[Cause, ...]:
        """Return the causes of the first explanation, or the equations that differ if all of them were read."""
        if self.explanations and self.reference is not None:
            return self.explanations[0].causes
        return () if self.partial else causes_of_lines(self.lines)


def target_of(updates_trace: Trace, script: GradientScript, dtype: str) -> Target:
    """Return the updates of a trace as the target of a search."""
    bound = tolerance(updates_trace, updates_trace, dtype)
    return Target(updates_trace.updates, bound, trace_inputs(updates_trace, script))


def diagnose_match(observation: Observation, reference: Formula | None) -> Diagnosis:
    """Report what could differ although the updates match, if the reference is a library rule."""
    target = target_of(observation.reference, observation.script, observation.dtype)
    formula = library_formula(target, reference)
    return Diagnosis(formula, not_observed=_not_observed(formula, target))


def diagnose(
    difference: Pass,
    observation: Observation,
    guess: Formula | None,
    max_fits: int = MAX_FITS,
    repeat: Callable[[], Observation] | None = None,
    read: Callable[[Formula | None], tuple[Line, ...]] = lambda reference: (),
) -> Diagnosis:
    """Find the formulas of both optimizers and name the differences.

    A formula that is found must also reproduce the updates of a second script, with other gradients and more steps. The
    search did not see these, so a formula that only fits the first script is refuted. If all updates of the candidate
    are zero or NaN, the result contains only a remark.

    Args:
      difference: the pass in which the optimizers differ.
      observation: the updates of both optimizers.
      guess: the formula of the reference, if it is known or likely.
      max_fits: maximum number of rules to fit to the candidate; up to 2/3 as many are fitted to the reference if its
        formula must be searched.
      repeat: function that runs both optimizers on the second script; None to accept formulas without this proof.
      read: function that compares the equations read from what the candidate stores with a formula, or with those of
        the reference if its formula is unknown. It is called if the simple rules fail; if it explains the difference,
        rules with several choices are not fitted.
    """
    updates = observation.candidate.updates
    for name, mask in (("zero", updates == 0), ("NaN", np.isnan(updates))):
        if mask.all():
            return Diagnosis(remark=f"all updates of the candidate are {name}")
    script, dtype = observation.script, observation.dtype
    reference_target = target_of(observation.reference, script, dtype)
    reference, rounding = _identify_reference(reference_target, guess, max_fits, dtype)

    second = None if repeat is None or reference is None else repeat()
    if second is not None and reference is not None:
        target = target_of(second.reference, second.script, dtype)
        if not _proved([Attempt(reference)], target, rounding is not None):
            reference, rounding = None, None

    def candidate_target(some: Observation, leaves: tuple[str, ...] = difference.leaves) -> Target:
        target = target_of(some.candidate, some.script, dtype)
        return target.select(elements_of(leaves, some.script)) if leaves else target

    lines = functools.cache(lambda: read(reference))
    target, budget, refuted = candidate_target(observation), Budget(max_fits), 0
    matches, needs_float32 = _search(target, reference, budget, dtype, lambda: _is_complete(lines()))
    if matches and repeat is not None:
        other = candidate_target(second or repeat())
        proved = _proved(matches, other, needs_float32)
        refuted = len(matches) - len(proved)
        if not proved:  # the second script may show what the first does not, such as the ε of a norm
            matches, needs_float32 = _search(other, reference, budget, dtype, lambda: _is_complete(lines()))
            proved = _proved(matches, target, needs_float32)
        matches = proved

    whole = candidate_target(observation, ())
    if needs_float32:
        target, whole = _with_float32_bound(target), _with_float32_bound(whole)
    explanations = []
    for match in matches:
        leaves = difference.leaves if difference.leaves and not reproduces(match.formula, whole) else None
        causes = causes_of(reference, match.formula, leaves) + _precision(needs_float32, rounding)
        error = largest_error(match.formula, target)
        formula = _without_idle_choices(match.formula, target)
        explanations.append(Explanation(formula, causes, error, _library_name(match, reference)))
    explanations = _merge(sorted(explanations, key=lambda explanation: _oddness(explanation, reference)), reference)
    if explanations:
        explanations[0] = explanations[0]._replace(runner_up=_runner_up(explanations[0], reference, target))
    explained = explanations != [] and reference is not None
    read_lines = () if explained else lines()
    return Diagnosis(
        reference=reference,
        explanations=tuple(explanations),
        remark=f"{budget.used:,} rules fitted",
        complete=not budget.exhausted,
        levels=tuple(budget.levels),
        impact=_impact(reference, explanations[0].formula) if reference and explanations else "",
        not_observed=_not_observed(reference, reference_target, explanations, target, () if explained else read_lines),
        refuted=refuted,
        lines=() if explained else read_lines if _is_complete(read_lines) else certain_lines(read_lines),
        partial=not explained and not _is_complete(read_lines),
    )


def _without_idle_choices(formula: Formula, target: Target) -> Formula:
    """Return the formula without choices of the reference that do not affect the updates, if that is so."""
    if not is_moments(formula.rule):
        return formula
    tidy = formula._replace(rule=plain_rule(formula.rule))
    return tidy if reproduces(tidy, target) else formula


def _is_complete(lines: tuple[Line, ...]) -> bool:
    """Return True if all equations were read."""
    return lines != () and all(line.known for line in lines)


def _search(
    target: Target, reference: Formula | None, budget: Budget, dtype: str, explained: Callable[[], bool]
) -> tuple[list[Attempt], bool]:
    """Return the formulas that reproduce the updates, and True if they need the bound of `_with_float32_bound`."""
    if reference is None:
        return [] if explained() else identify_formula(target, None, budget), False
    loose_target = _with_float32_bound(target) if dtype == "float64" else None
    matches, rounded = search(target, reference, budget, loose_target, explained)
    if rounded and not _is_float32(target):  # within this bound, other differences could look like rounding
        known = [reference, *LIBRARY_RULES.values()]
        matches = [match for match in matches if any(_same_but_rate(match.formula, formula) for formula in known)]
    return matches, rounded and matches != []


def _same_but_rate(formula: Formula, other: Formula) -> bool:
    """Return True if two formulas are equal except for the learning rate."""
    rate = other.hyper.learning_rate
    return formula._replace(hyper=formula.hyper._replace(learning_rate=rate)) == other


def _proved(matches: list[Attempt], target: Target, needs_float32: bool) -> list[Attempt]:
    """Return the formulas that also reproduce the updates of another script."""
    target = _with_float32_bound(target) if needs_float32 else target
    return [match for match in matches if reproduces(match.formula, target)]


def _identify_reference(
    target: Target, guess: Formula | None, max_fits: int, dtype: str
) -> tuple[Formula | None, Cause | None]:
    """Return the formula of the reference, and a cause if the reference rounds values, as optax.adafactor rounds β₂."""
    if (formula := library_formula(target, guess)) is not None:
        return formula, None
    formula = library_formula(_with_float32_bound(target), guess) if dtype == "float64" else None
    if formula is not None and _differs_without_params(formula, target):
        return formula, REFERENCE_PRECISION
    matches = identify_formula(target, guess, Budget(2 * max_fits // 3))
    return (matches[0].formula if matches else None), None


def _differs_without_params(formula: Formula, target: Target) -> bool:
    """Return True if updates of zero parameters differ, so the cause is rounding and not a tiny weight decay."""
    zero = target.select(np.flatnonzero((target.inputs.params == 0).all(0)))
    return zero.updates.size > 0 and not within(update_array(formula, zero.inputs), zero.updates, zero.bound).all()


def _precision(candidate_rounds: bool, reference: Cause | None) -> tuple[Cause, ...]:
    if candidate_rounds:
        return (BOTH_PRECISIONS if reference else PRECISION,)
    return () if reference is None else (reference,)


def _oddness(explanation: Explanation, reference: Formula | None) -> tuple[int, float, int, int, int, int, bool]:
    """Return a sort key that prefers usual numbers, few causes, choices of libraries, and the reference's numbers.

    If nothing is plainer than the rule of a library, it comes first.
    """
    formula = explanation.formula
    rescaled = 0 if reference is None else sum(a != b for a, b in zip(formula.hyper, reference.hyper, strict=True))
    numbers = (float(getattr(formula.hyper, name)) for name in hyper_names(formula.rule))
    digits = sum(digits_of(number) > FEW_DIGITS for number in numbers)
    # the same change to both moments counts once
    changes = {
        (cause.place.removeprefix("first_").removeprefix("second_"), cause.value) for cause in explanation.causes
    }
    count = len(changes) if reference is None else min(len(changes), library_complexity(formula, reference))
    is_unknown = all(formula.rule != library.rule for library in LIBRARY_RULES.values())
    rare = sum(is_rare(Edit(cause.place, "", cause.value)) for cause in explanation.causes)
    return digits, count, len(changes), unusual_choices(formula.rule), rescaled, rare, is_unknown


def _merge(explanations: list[Explanation], reference: Formula | None = None) -> list[Explanation]:
    """Merge explanations that are equal for all gradients: later ones become synonyms of the first.

    The rule of a library has no synonyms, because its name says more than other choices with the same effect.
    """
    distinct: list[Explanation] = []
    for explanation in explanations:
        target = _general_target(explanation.formula)
        same = next((i for i, other in enumerate(distinct) if reproduces(other.formula, target)), None)
        if same is None:
            distinct.append(explanation)
        elif reference is None or not is_library_rule(distinct[same].formula, reference):
            distinct[same] = distinct[same]._replace(synonyms=(*distinct[same].synonyms, explanation.causes))
    return distinct


def _library_name(match: Attempt, reference: Formula | None) -> str:
    """Return the library rule that a match equals or comes from, or "" for none or for the reference's rule."""
    if reference is not None and match.formula.rule == reference.rule:
        return ""
    names = (name for name, formula in LIBRARY_RULES.items() if formula.rule == match.formula.rule)
    return next(names, match.library)


def _with_float32_bound(target: Target) -> Target:
    """Return the target with a larger bound that allows for rounding to float32.

    If all updates are float32 numbers, the bound is the one for float32. Otherwise it allows for one factor rounded to
    float32, as in PyTorch's NAdam; a larger bound would hide a missing weight decay.
    """
    values = target.updates
    if _is_float32(target):
        return target._replace(bound=rounding_bound(values, values, target.inputs.params, "float32"))
    return target._replace(bound=target.bound + SINGLE * np.abs(values))


def _is_float32(target: Target) -> bool:
    """Return True if all updates are float32 numbers."""
    values, params = target.updates, target.inputs.params
    with np.errstate(over="ignore", invalid="ignore"):
        difference = np.abs(values - values.astype(np.float32))
    return bool((difference <= 4 * EPS["float64"] * (np.abs(values) + np.abs(params))).all())


def _runner_up(explanation: Explanation, reference: Formula | None, target: Target) -> str:
    """Describe the next best formula: the reference or a neighbour that reproduces most of the updates, but not all.

    Return "" if there is none.
    """
    formula = explanation.formula
    shares = {} if reference is None else {"the reference": share_within(reference, target)}
    for edits, rule in neighbours(formula.rule):
        if hyper_names(rule) == hyper_names(formula.rule):
            name = ", ".join(sentence(rule, edit.place, edit.new) for edit in edits)
            shares[name] = share_within(formula._replace(rule=rule), target)
    shares = {name: share for name, share in shares.items() if share < 1}
    best = max(shares, key=lambda name: shares[name], default="")
    return f"the next best ({best}) reproduces {_percent(shares[best])} %" if best else ""


def _not_observed(
    reference: Formula | None,
    target: Target,
    explanations: Sequence[Explanation] = (),
    candidate: Target | None = None,
    lines: Sequence[Line] = (),
) -> tuple[str, ...]:
    """Describe what could differ without changing the updates of either optimizer, except what the explanation shows.

    Args:
      reference: the formula of the reference; None if it is unknown.
      target: the updates of the reference.
      explanations: the formulas of the candidate.
      candidate: the updates of the candidate, if they differ.
      lines: the equations of the candidate, if they were read.
    """
    remarks = {} if reference is None else not_observed(reference, target)
    if remarks and explanations and candidate is not None:
        visible = remarks.keys() - not_observed(explanations[0].formula, candidate).keys()
        remarks = {key: text for key, text in remarks.items() if key not in visible}
    shown = {cause.place for explanation in explanations for cause in explanation.causes}
    shown |= {"rate_position"} if any(line.array == "b" and line.differs for line in lines) else set()
    texts = [text for (place, _), text in remarks.items() if place not in shown]
    decays = any(not _has_no_decay(explanation.formula) for explanation in explanations)
    decays |= any("θ" in line.candidate.removeprefix("θ") for line in lines)
    if not decays and (_ignores_params(target) if reference is None else _has_no_decay(reference)):
        texts.append("weight decay (the reference has none)")
    return tuple(texts)


def _has_no_decay(formula: Formula) -> bool:
    return formula.rule.decay == "none" or float(formula.hyper.weight_decay) == 0


def _ignores_params(target: Target) -> bool:
    """Return True if elements with equal gradients have equal updates, although their parameters differ."""
    grads, params, updates = target.inputs.grads, target.inputs.params, target.updates
    _, first, group = np.unique(grads, axis=1, return_index=True, return_inverse=True)
    same = first[group.ravel()]
    differs = (params[0] != params[0, same]).any()
    return bool(differs and within(updates, updates[:, same], target.bound + target.bound[:, same]).all())


def not_observed(formula: Formula, target: Target) -> dict[tuple[str, str], str]:
    """Return the choices and hyper-parameters that could differ from a formula without changing its updates.

    Args:
      formula: the formula of an optimizer.
      target: the updates of the optimizer.

    Returns:
      Their descriptions, keyed by the place in the rule and the choice, or by the name of the hyper-parameter and "".
    """
    rule, hyper = formula
    general = _general_target(formula)
    remarks = {}
    for edits, neighbour in neighbours(rule):
        if len(edits) > 1 or edits[0].place == "schedule" or hyper_names(neighbour) != hyper_names(rule):
            continue
        changed = Formula(neighbour, hyper)
        if reproduces(changed, target) and not reproduces(changed, general):
            place, _, new = edits[0]
            remarks[place, new] = f"whether {sentence(neighbour, place, new)}"
    for name in hyper_names(rule):
        value = float(getattr(hyper, name))
        new_value = 1 - 2 * (1 - value) if name in DECAY_RATES else 2 * value
        if value != 0 and reproduces(Formula(rule, hyper._replace(**{name: new_value})), target):
            remarks[name, ""] = hyper_name(name, rule)
    return remarks


def _general_target(formula: Formula) -> Target:
    """Return the updates of a formula with a schedule, in which every difference between rules is visible."""
    inputs = rule_inputs(gradient_script(1, scheduled=True))
    values = update_array(formula, inputs)
    return Target(values, 1e-9 * np.abs(values), inputs)


def _impact(reference: Formula, candidate: Formula) -> str:
    """Describe how much the updates differ on ordinary gradients, drawn from N(0, 1)."""
    rng = np.random.default_rng(0)
    steps, size = 100, 64
    inputs = Inputs(
        grads=rng.normal(size=(steps, size)),
        params=rng.normal(size=(steps, size)),
        rates=np.ones(steps),
        leaf=np.zeros(size, int),
        leaf_count=1,
        row=np.arange(size) // 8,
        shapes=((8, size // 8),),
    )
    a, b = update_array(reference, inputs), update_array(candidate, inputs)
    with np.errstate(all="ignore"):
        relative = np.nan_to_num(np.abs(a - b) / np.maximum(np.abs(a), np.abs(b)), nan=1.0)
    differs = relative > 1e-12  # more than rounding
    if np.median(relative) == 0 and differs.any():
        share, first, last = (_percent(part.mean()) for part in (differs, differs[0], differs[-1]))
        return (
            f"with gradients N(0, 1) over {steps} steps, {share} % of the updates differ ({first} % at the first step, "
            f"{last} % at the last), by {_percent(np.median(relative[differs]))} % (median of these)"
        )
    median, first, last = (_percent(np.median(part)) for part in (relative, relative[0], relative[-1]))
    first, last = (
        f"0 % ({_percent(part.mean())} % of the updates differ)" if text == "0" and part.any() else f"{text} %"
        for text, part in ((first, differs[0]), (last, differs[-1]))
    )
    return (
        f"with gradients N(0, 1) over {steps} steps, updates differ by {median} % (median), "
        f"{first} at the first step, {last} at the last"
    )


def _percent(share: float) -> str:
    """Format a share in percent with two digits, and more above 99, which would otherwise read 1e+02."""
    percent = 100 * share
    if percent > 100:
        return f"{percent:.3g}"
    return f"{percent:.2g}" if percent < 99 else f"{np.floor(100 * percent) / 100:g}"
