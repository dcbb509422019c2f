"""Which known form makes these updates? From a form to its neighbours, nearest first, while the time lasts."""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from nnjax.optcheck.rules.library_rules import NAMED, Named
from nnjax.optcheck.rules.rule_choices import PAIRED, Edit, differences, edits, used, with_start
from nnjax.optcheck.rules.update_rule import Form, Hyper
from nnjax.optcheck.search.fitting import Fit, Target, free, rate_of, refit, reproduces, roughly

FITTED = {  # what another choice on an axis can be made up for with
    "decay": ["weight_decay"],
    "velocity": ["learning_rate"],
    "first_correction": ["learning_rate", "eps", "weight_decay"],
    "second_correction": ["learning_rate", "eps", "weight_decay"],
}
ROUGH, EXACT = 100, 12  # forms fitted roughly at a time, and the closest of them, which are fitted exactly
STARTS = {"first_start": (1e-6, 0.1, 1.0), "second_start": (1e-6, 0.1, 1.0)}


class Explanation(NamedTuple):
    """A form that makes the updates."""

    form: Form
    hyper: Hyper
    edits: tuple[Edit, ...]  # the choices that differ from those of the form the search began with
    near: str  # that form's name; "" for the reference


class Search(NamedTuple):
    """What was found in the time."""

    explanations: tuple[Explanation, ...]  # all of the level at which there was one: more than one is a tie
    level: str  # what was tried last
    tried: int  # forms
    complete: bool  # whether all levels were tried, or something was found, before the time was over


Try = tuple[Form, Hyper, tuple[Edit, ...], str]


def search(target: Target, start: Named, seconds: float, *, near: bool = False) -> Search:
    """Forms that make the updates, the nearest to a form.

    Args:
      target: the updates.
      start: the form and hyper-parameters to begin with.
      seconds: when to give up.
      near: whether to end after those forms that are one choice away.
    """
    until, tried = time.perf_counter() + seconds, 0
    for level, attempts in _levels(start, target, near):
        found: list[Explanation] = []
        for form, hyper, made, name in attempts:
            tried += 1
            if reproduces(form, hyper, target):
                found.append(Explanation(form, hyper, made, name))
            if time.perf_counter() > until:
                return _ended(found, start, target, level, tried, bool(found))
        if found:
            return _ended(found, start, target, level, tried, True)
    return Search((), "all", tried, True)


def _ended(found: list[Explanation], start: Named, target: Target, level: str, tried: int, complete: bool) -> Search:
    simplest = [_simplest(explanation, start, target) for explanation in found]
    ties = [tie for explanation in simplest for tie in _ties(explanation, target)]
    ties += [tie for explanation in ties for tie in _ties(explanation, target, "decay")]
    return Search(tuple(_best(simplest, ties, start)), level, tried, complete)


def _levels(start: Named, target: Target, near: bool) -> Iterator[tuple[str, Iterable[Try]]]:
    form, hyper = start
    yield "the same", [(form, hyper, (), "")]
    yield "other hyper-parameters", [(form, refit(form, hyper, target, free(form, hyper)).hyper, (), "")]
    yield "one choice", _singles(form, hyper, target)
    yield "a known optimizer as it is", named(hyper, target)
    yield "another start of the moments", _started(form, hyper, target)
    if near:
        return
    changed = by_cost(_changed(form, hyper), target)
    known = by_cost(named(hyper, target), target)
    yield "a known optimizer", _exactly(known[:EXACT], target)
    yield "one choice and other hyper-parameters", _exactly(changed[:EXACT], target)
    yield "two choices", _doubles(form, hyper)
    beside = _beside(_sorted([*changed, *known]))
    while some := list(itertools.islice(beside, ROUGH)):
        yield "two choices and other hyper-parameters", _exactly(by_cost(some, target)[:EXACT], target)


def _singles(form: Form, hyper: Hyper, target: Target) -> Iterator[Try]:
    """All neighbours; the hyper-parameters that one brings with it are fitted."""
    for made, other in edits(form):
        started = with_start(other, hyper)
        new = [name for name in used(other) if name not in used(form) and getattr(started, name) != 0]
        yield other, refit(other, started, target, new).hyper if new else started, made, ""


def _exactly(fits: Iterable[tuple[Fit, Try]], target: Target) -> Iterator[Try]:
    """With the hyper-parameters that fit."""
    for rough, (form, _, made, near) in fits:
        yield form, refit(form, rough.hyper, target, free(form, rough.hyper)).hyper, made, near


def by_cost(attempts: Iterable[Try], target: Target) -> list[tuple[Fit, Try]]:
    """Roughly fitted, the closest first."""
    return _sorted([(roughly(each[0], each[1], target, free(each[0], each[1])), each) for each in attempts])


def _sorted(fits: list[tuple[Fit, Try]]) -> list[tuple[Fit, Try]]:
    return sorted(fits, key=lambda fit: fit[0].cost)


def _started(form: Form, hyper: Hyper, target: Target) -> Iterator[Try]:
    """Moments that do not start at zero."""
    for name, values in STARTS.items():
        if getattr(form, name.removesuffix("_start")) == "none":
            continue
        for value in values:
            began = hyper._replace(**{name: value})
            yield form, refit(form, began, target, [name]).hyper, (), ""
            yield form, refit(form, began, target, [*free(form, hyper), name]).hyper, (), ""


def named(hyper: Hyper, target: Target) -> Iterator[Try]:
    """Known optimizers, with their own defaults, and the learning rate that fits."""
    for name, (form, default) in NAMED.items():
        same = default._replace(learning_rate=hyper.learning_rate)
        yield form, same._replace(learning_rate=rate_of(form, same, target)), (), name


def _doubles(form: Form, hyper: Hyper) -> Iterator[Try]:
    """Two choices that need no other hyper-parameters."""
    seen = {other for _, other in edits(form)}
    for first, one in edits(form):
        for second, two in edits(one):
            if two not in seen and set(used(two)) <= set(used(form)) and _apart(first, second):
                seen.add(two)
                yield two, hyper, (*first, *second), ""


def _changed(form: Form, hyper: Hyper) -> Iterator[Try]:
    for made, other in edits(form):
        yield other, with_start(other, hyper), made, ""


def _beside(fits: Iterable[tuple[Fit, Try]]) -> Iterator[Try]:
    """All neighbours of these, each once; what a form was fitted to without its second change would mislead."""
    done = set()
    for _, (form, hyper, first, near) in fits:
        for second, other in edits(form):
            if other not in done and _apart(first, second):
                done.add(other)
                yield other, with_start(other, hyper), (*first, *second), near


def _apart(first: tuple[Edit, ...], second: tuple[Edit, ...]) -> bool:
    """Whether two changes are of different axes."""
    return not {edit.axis for edit in first} & {edit.axis for edit in second}


def _ties(found: Explanation, target: Target, axis: str = "") -> Iterator[Explanation]:
    """Forms one choice further, on any axis or a certain one, that make the same updates."""
    for made, form in edits(found.form):
        if used(form) == used(found.form) and axis in ("", made[0].axis):
            near = _same_decay(found.form.decay, form.decay, found.hyper)
            fitted = [name for name in FITTED.get(made[0].axis, []) if name in free(form, near)]
            hyper = refit(form, near, target, fitted).hyper if fitted else near
            if reproduces(form, hyper, target):
                yield found._replace(form=form, hyper=hyper)


def _same_decay(old: str, new: str, hyper: Hyper) -> Hyper:
    """The weight decay that is as large with and without the learning rate as a factor."""
    if old == new or "without rate" not in (old, new):
        return hyper
    factor = hyper.learning_rate if new == "without rate" else 1 / hyper.learning_rate
    return hyper._replace(weight_decay=hyper.weight_decay * factor)


def _simplest(found: Explanation, start: Named, target: Target) -> Explanation:
    """The same updates with as much as possible of the form that the search began with."""
    form, hyper = found.form, found.hyper
    for axis, choice in [("decay", "none"), *((axis, getattr(start.form, axis)) for axis in Form._fields)]:
        plainer = form._replace(**{axis: choice})
        if axis == "decay" and form.decay == "none":
            continue  # found to be none, however small a fitted one would do as well
        if plainer != form and reproduces(plainer, hyper, target):
            form = plainer
    for name in Hyper._fields:
        simpler = hyper._replace(**{name: getattr(start.hyper, name)})
        if simpler != hyper and reproduces(form, simpler, target):
            hyper = simpler
    return found._replace(form=form, hyper=hyper)


def _best(found: Sequence[Explanation], ties: Sequence[Explanation], start: Named) -> list[Explanation]:
    """Each form once: those with the fewest differences; where numbers differ too, also those found with one more."""
    least: dict[Form, Explanation] = {}
    for explanation in (*found, *ties):
        least.setdefault(explanation.form, explanation)
    sizes = {form: _size(explanation, start) for form, explanation in least.items()}
    fewest = min(sizes.values(), default=0)
    forms = [form for form, size in sizes.items() if size == fewest]
    if any(_numbers(least[form], start) for form in forms):
        forms += [each.form for each in found if sizes[each.form] == fewest + 1]
    return [least[form] for form in dict.fromkeys(forms)]


def _size(found: Explanation, start: Named) -> int:
    """Choices that differ, a choice for both moments once; and hyper-parameters that differ."""
    axes = {edit.axis for edit in differences(start.form, found.form)}
    twice = sum(first in axes and second in axes for first, second in PAIRED.items())
    return len(axes) - twice + _numbers(found, start)


def _numbers(found: Explanation, start: Named) -> int:
    return sum(getattr(found.hyper, name) != getattr(start.hyper, name) for name in Hyper._fields)
