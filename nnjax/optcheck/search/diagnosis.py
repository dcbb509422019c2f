"""From two runs that differ to the formula of each, what the difference does to a training, and what was not seen."""

import time
from typing import NamedTuple

import numpy as np

from nnjax.optcheck.rules.library_rules import NAMED, Named
from nnjax.optcheck.rules.rule_choices import AXES, edits, used
from nnjax.optcheck.rules.update_rule import Form, Hyper, Seen, updates
from nnjax.optcheck.search.causes import HYPER, Cause, causes_of, identify_form, known_as_it_is, target_of
from nnjax.optcheck.search.fitting import Target, error, reproduces, within
from nnjax.optcheck.search.rule_search import Search, search
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.optcheck.trace.gradient_script import names, script, seen
from nnjax.optcheck.trace.observations import Observed, Pass
from nnjax.optcheck.trace.traces import EPS, allowed

SHARE = 0.8  # of the time that is left, for a search
SINGLE = 2e-6  # what one number in float32 makes of updates in float64, relative
PRECISION = Cause(
    "precision", "everything is float64", "something in it is float32, though all it is given is float64", ""
)


class Answer(NamedTuple):
    """A formula that makes the candidate's updates."""

    causes: tuple[Cause, ...]
    form: Form
    hyper: Hyper
    error: float  # the largest difference from the candidate's updates, relative
    near: str  # the known optimizer it is, or is next to; "" for the reference
    next_best: str  # the formula that comes next, and how many of the updates it makes


class Explained(NamedTuple):
    """What was found out."""

    reference: Named | None
    answers: tuple[Answer, ...]
    searched: str
    impact: str
    not_observed: tuple[str, ...]


def explain(passed: Pass, observed: Observed, reference: Named | None, deadline: Deadline) -> Explained:
    """The formula of both, as far as it is known.

    Args:
      passed: where they differ.
      observed: what they did.
      reference: the reference's formula, or a guess of it.
      deadline: by when.
    """
    began = time.perf_counter()
    moves = observed.candidate.updates
    for said, nothing in (("zero", moves == 0), ("NaN", np.isnan(moves))):
        if nothing.all():
            return Explained(None, (), f"all updates of the candidate are {said}", "", ())
    whole = target_of(observed.reference, observed.script, observed.dtype)
    same = identify_form(whole, reference, SHARE / 3 * deadline.left()).explanations
    known = Named(same[0].form, same[0].hyper) if same else None
    everything = target_of(observed.candidate, observed.script, observed.dtype)
    part = _part(passed, observed)
    target = target_of(observed.candidate, observed.script, observed.dtype, part)
    found, single = _found(target, known, observed.dtype == "float64", deadline)
    target, everything = (_loosened(target), _loosened(everything)) if single else (target, everything)
    answers = []
    for explanation in found.explanations:
        causes = causes_of(known, explanation.form, explanation.hyper)
        if part is not None and not reproduces(explanation.form, explanation.hyper, everything):
            causes = tuple(cause._replace(leaves=passed.leaves) for cause in causes)
        causes = (*causes, PRECISION) if single else causes
        wrong = error(explanation.form, explanation.hyper, target)
        same_form = known is not None and explanation.form == known.form  # only its numbers are others
        named = (name for name, each in NAMED.items() if each.form == explanation.form)
        near = "" if same_form else next(named, explanation.near)
        answers.append(Answer(causes, explanation.form, explanation.hyper, wrong, near, ""))
    library = {form for form, _ in NAMED.values()}
    answers.sort(key=lambda answer: answer.form not in library)  # of several that are equal, what libraries have first
    if answers:
        answers[0] = answers[0]._replace(next_best=_next_best(answers[0], known, target))
    seconds = time.perf_counter() - began
    level = "" if found.complete else f"; the time was over at: {found.level}"
    searched = f"{found.tried:,} forms tried in {seconds:.1f} s{level}"
    hidden = () if known is None else not_observed(known, whole)
    return Explained(known, tuple(answers), searched, impact(known, answers), hidden)


def _found(target: Target, known: Named | None, double: bool, deadline: Deadline) -> tuple[Search, bool]:
    """The candidate's form, and whether float32's rounding was allowed for it in float64."""
    if known is None:
        return identify_form(target, None, SHARE * deadline.left()), False
    found = search(target, known, SHARE * deadline.left(), near=True)
    if double and not found.explanations:
        found = search(_loosened(target), known, SHARE * deadline.left(), near=True)
        if found.explanations:
            return found, True
    return (found if found.explanations else search(target, known, SHARE * deadline.left())), False


def _loosened(target: Target) -> Target:
    """What float32 in float64 makes of the updates: all of its rounding where they are numbers of float32 throughout;
    otherwise of one number, as PyTorch's NAdam keeps one. More would let a decay that is lost pass for rounding.
    """
    made, params = target.updates, target.seen.params
    with np.errstate(over="ignore", invalid="ignore"):
        off = np.abs(made - made.astype(np.float32))
    if (off <= 4 * EPS["float64"] * (np.abs(made) + np.abs(params))).all():
        return target._replace(allowed=allowed(made, made, params, "float32"))
    return target._replace(allowed=target.allowed + SINGLE * np.abs(made))


def _next_best(answer: Answer, reference: Named | None, target: Target) -> str:
    """Of the reference's formula and the neighbours of the one that was found."""
    shares = {} if reference is None else {"the reference's": within(*reference, target)}
    for made, form in edits(answer.form):
        if used(form) == used(answer.form):
            shares[", ".join(AXES[edit.axis][edit.new] for edit in made)] = within(form, answer.hyper, target)
    shares = {name: share for name, share in shares.items() if share < 1}
    best = max(shares, key=lambda name: shares[name], default="")
    return f"({best}) makes {100 * shares[best]:.2g} % of them" if best else ""


def matched(observed: Observed, reference: Named | None) -> Explained:
    """What is known of a reference that a candidate matches, without a search for it."""
    whole = target_of(observed.reference, observed.script, observed.dtype)
    known = known_as_it_is(whole, reference)
    return Explained(known, (), "", "", () if known is None else not_observed(known, whole))


def _part(passed: Pass, observed: Observed) -> list[int] | None:
    """The numbers of the leaves in which they differ; None for all."""
    if not passed.leaves:
        return None
    kinds = [name.split("/", 1)[1] for name in names(observed.script.grads)]
    return [i for i, kind in enumerate(kinds) if kind in passed.leaves]


def not_observed(reference: Named, target: Target) -> tuple[str, ...]:
    """What could be otherwise without a trace in these updates."""
    form, hyper = reference
    general = _general(reference)
    hidden = []
    for made, other in edits(form):
        if len(made) > 1 or made[0].axis == "rate" or used(other) != used(form):
            continue
        if reproduces(other, hyper, target) and not reproduces(other, hyper, general):
            hidden.append(f"whether {AXES[made[0].axis][made[0].new]}")
    for name in used(form):
        value = float(getattr(hyper, name))
        moved = 1 - 2 * (1 - value) if name in ("b1", "b2", "momentum", "dampening") else 2 * value
        if value != 0 and reproduces(form, hyper._replace(**{name: moved}), target):
            hidden.append(HYPER[name])
    if form.decay == "none":
        hidden.append("weight decay, for the reference has none")
    return tuple(hidden)


def _general(reference: Named) -> Target:
    """Updates with a schedule, in which whatever makes any difference shows."""
    given = seen(script(1, scheduled=True))
    with np.errstate(all="ignore"):
        made = np.stack(list(updates(*reference, given)))
    return Target(made, 1e-9 * np.abs(made), given)


def impact(reference: Named | None, answers: list[Answer]) -> str:
    """How much it matters on ordinary gradients, N(0, 1)."""
    if reference is None or not answers:
        return ""
    rng = np.random.default_rng(0)
    steps, size = 100, 64
    given = Seen(rng.normal(size=(steps, size)), rng.normal(size=(steps, size)), np.ones(steps), np.zeros(size, int), 1)
    with np.errstate(all="ignore"):
        a, b = (np.stack(list(updates(*both, given))) for both in (reference, (answers[0].form, answers[0].hyper)))
        off = np.abs(a - b) / np.maximum(np.abs(a), np.abs(b))
    off = np.nan_to_num(off, nan=1.0)
    return (
        f"on gradients N(0, 1), 100 steps, the median update is off by {100 * np.median(off):.2g} %, the first by "
        f"{100 * np.median(off[0]):.2g} %, the last by {100 * np.median(off[-1]):.2g} %"
    )
