"""Try all rules that differ from a rule in a few choices and usual numbers, without a fit.

Only the first step is computed, for parameters that are zero. There an update is proportional to the learning rate, so
one ratio for all elements is required, and the learning rate follows from it.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from nnjax.optcheck.rules.families import hyper_names, is_by_leaf, is_by_tree, neighbours, updates
from nnjax.optcheck.rules.neighbours import Edit, is_rare
from nnjax.optcheck.rules.update_rule import STARTS, Formula, HyperParams
from nnjax.optcheck.search.fitting import Target
from nnjax.optcheck.trace.tolerance import within

VALUES: dict[str, tuple[float, ...]] = {
    "b1": (0.5, 0.8, 0.9, 0.95, 0.99, 0.999),
    "b2": (0.9, 0.95, 0.98, 0.99, 0.999, 0.9999),
    "b3": (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 0.9999),
    "eps": (1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3),
    "momentum": (0.5, 0.8, 0.9, 0.95, 0.99),
    "dampening": (0.1, 0.5, 0.9),
    "weight_decay": (1e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 0.05, 0.1),
    "clip": (0.1, 0.5, 1.0, 2.0, 5.0, 10.0),
    "eps_state": (1e-16, 1e-12, 1e-10, 1e-8, 1e-7, 1e-6),
    "momentum_decay": (4e-3, 1.0),
    "first_start": (0.0, 1e-6, 0.1, 1.0),
    "second_start": (0.0, 1e-6, 0.1, 1.0),
    "velocity_start": (0.0, 1.0),
    "rescaling_start": (0.0, 1e-6, 0.1, 1.0),
    "rate_decay": (1e-3, 1e-2, 0.05, 0.1, 0.5, 0.9),
    "period": (2, 3, 4, 5, 8, 10),
}
MORE_NUMBERS = ("momentum_decay", "eps_state")  # of NAdam and AdaBelief
LATE = ("decay", "first_storage", "second_storage", "maximum", "schedule")  # see `_is_late`
EARLY = ("minimum", "corrected twice", "of m", "warm-up")  # choices at these places with an effect on the first step
ELEMENTS = 24  # number of elements that are compared first
# Allowed relative difference in the first step, because weight decay after the update scales the step by 1 - λ w
LOOSE = 2e-3


def few_differences(target: Target, start: Formula, count: int) -> Iterator[tuple[Formula, tuple[Edit, ...]] | None]:
    """Yield formulas with exactly `count` differences from the start whose first step agrees with the target.

    Each formula comes with the edits that lead to it, and each rule is announced by None, so that rules can be
    counted. A difference is a choice or a number; of three choices, rare ones are not tried. Choices without effect on
    the first step are added after the first step was compared.

    Args:
      target: the updates to reproduce.
      start: the formula to start from.
      count: number of differences, 2 or 3.
    """
    first = _first_step(target)
    if first is None:
        return
    for choices in range(count + 1):
        for edits, rule in _rules(start.rule, choices, rare=count < 3, late=False):
            yield None
            for formula, numbers in _viable(rule, start, count - choices, first):
                missing = count - choices - numbers
                if missing == 1 and set(hyper_names(rule)) - set(hyper_names(start.rule)):
                    yield formula, edits  # the number that the rule adds is the other difference
                for more, later in _rules(rule, missing, rare=count < 3, late=True) if missing else [((), rule)]:
                    if choices + missing > 0 or any(getattr(formula.hyper, name) for name in STARTS):
                        for hyper in _with_new_numbers(hyper_names(later), formula.hyper, hyper_names(rule)):
                            yield Formula(later, hyper), (*edits, *more)


def _rules(start: Any, choices: int, *, rare: bool, late: bool) -> Iterator[tuple[tuple[Edit, ...], Any]]:
    """Yield all rules with this number of choices that differ from the start, each once.

    Args:
      start: the rule to start from.
      choices: number of different choices.
      rare: if True, rare choices are included.
      late: if True, only choices without effect on the first step are made, else only the others.
    """
    seen: set[Any] = {start}
    level: list[tuple[tuple[Edit, ...], Any]] = [((), start)]
    for _ in range(choices):
        next_level = []
        for edits, middle in level:
            places = {edit.place for edit in edits}
            for more, rule in neighbours(middle):
                if rule in seen or places & {edit.place for edit in more} or _is_late(more[0]) != late:
                    continue
                seen.add(rule)
                if rare or not any(is_rare(edit) for edit in more):
                    next_level.append(((*edits, *more), rule))
        level = next_level
    yield from level


def _is_late(edit: Edit) -> bool:
    """Return True if a choice has no effect on the first step of elements with zero parameters."""
    return edit.place in LATE and edit.new not in EARLY and "from 1" not in edit.new


class _Part(NamedTuple):
    """The first step of some elements, and the places of those that are compared."""

    target: Target
    places: np.ndarray


class _FirstStep(NamedTuple):
    """The elements that a rule needs: only those that are compared, or their leaf or the whole tree."""

    elements: _Part
    leaf: _Part
    tree: _Part

    def of(self, rule: Any) -> _Part:
        """Return the smallest part from which the updates of a rule can be computed."""
        return self.tree if is_by_tree(rule) else self.leaf if is_by_leaf(rule) else self.elements


def _first_step(target: Target) -> _FirstStep | None:
    """Return the first step of elements with zero parameters and nonzero gradients, or None."""
    whole = target.first_steps(1)
    places = _comparable(whole)
    if places.size == 0:
        return None
    leaves = whole.inputs.leaf
    leaf = whole.select(np.flatnonzero(leaves == np.bincount(leaves[places]).argmax()))
    chosen = _spread(whole, places)
    elements = whole.select(chosen)
    return _FirstStep(
        _Part(elements, np.arange(chosen.size)), _Part(leaf, _spread(leaf, _comparable(leaf))), _Part(whole, chosen)
    )


def _comparable(target: Target) -> np.ndarray:
    g, p, u = target.inputs.grads[0], target.inputs.params[0], target.updates[0]
    with np.errstate(invalid="ignore"):
        places = np.flatnonzero((p == 0) & (g != 0) & ~(np.abs(u) < 10 * target.bound[0]))
    return places if places.size > 0 else np.flatnonzero((p == 0) & (g != 0))


def _spread(target: Target, places: np.ndarray) -> np.ndarray:
    """Return some of the places, spread over the magnitudes of their gradients."""
    order = places[np.argsort(np.abs(target.inputs.grads[0, places]), kind="stable")]
    return order[np.unique(np.linspace(0, order.size - 1, ELEMENTS).astype(int))]


def _viable(rule: Any, start: Formula, numbers: int, first: _FirstStep) -> Iterator[tuple[Formula, int]]:
    """Yield settings of a rule whose first step agrees with the target, and how many hyper-parameters differ."""
    used = (*hyper_names(start.rule), *STARTS, *MORE_NUMBERS)
    more = _more_numbers(rule, start.hyper)
    names = (
        *hyper_names(rule),
        *more,
        *(name for name in STARTS if getattr(rule, name.removesuffix("_start")) != "none"),
    )
    settings, counts, columns = _settings(names, used, start.hyper, numbers)
    formula = Formula(rule, columns if len(settings) > 1 else settings[0])
    with np.errstate(all="ignore"):
        part, places = first.of(rule)
        values = np.atleast_2d(next(updates(formula, part.inputs)))[:, places]
        wanted, bound = part.updates[0, places], part.bound[0, places]
        clear = int(np.nan_to_num(np.abs(wanted) / bound).argmax())
        factors = wanted[clear] / values[:, clear]
        factors = np.where(np.isfinite(factors) & (factors > 0), factors, 1.0)
        agree = within(factors[:, None] * values, wanted, bound + LOOSE * np.abs(wanted)).all(1)
    for i in np.flatnonzero(agree):
        rate = _short(float(settings[i].learning_rate * factors[i]), float(start.hyper.learning_rate))
        different = counts[i] + (rate != start.hyper.learning_rate)
        if different <= numbers:
            yield Formula(rule, settings[i]._replace(learning_rate=rate)), int(different)


def one_number(start: Formula) -> Iterator[Formula]:
    """Yield the formula with a usual value of one hyper-parameter, except the learning rate."""
    for name in (*hyper_names(start.rule), *_more_numbers(start.rule, start.hyper)):
        doubled = [start.hyper.weight_decay * factor for factor in (2, 0.5)] if name == "weight_decay" else []
        for value in (*VALUES.get(name, ()), *doubled):
            if value != getattr(start.hyper, name):
                yield start._replace(hyper=start.hyper._replace(**{name: value}))


def _more_numbers(rule: Any, hyper: HyperParams) -> list[str]:
    """Return the hyper-parameters of a rule that are usually zero or infinite, if they are not."""
    used = {"momentum_decay": np.isfinite(hyper.momentum_decay), "eps_state": hyper.eps_state > 0}
    used["eps_state"] &= "in state" in getattr(rule, "eps", "")
    return [name for name in MORE_NUMBERS if used[name]]


@functools.lru_cache(maxsize=256)
def _settings(
    names: tuple[str, ...], used: tuple[str, ...], hyper: HyperParams, numbers: int
) -> tuple[list[HyperParams], list[int], HyperParams]:
    """Return hyper-parameters with at most `numbers` usual values that differ from a start, and how many differ.

    Args:
      names: the hyper-parameters of the rule.
      used: the hyper-parameters of the rule at the start. Others take all usual values.
      hyper: the values at the start.
      numbers: the largest number of different values.

    Returns:
      The settings, the number of differences of each, and all settings as arrays (settings, 1).
    """
    known = [name for name in names if name in VALUES and name in used]
    settings, counts = [], []
    for base in _with_new_numbers(names, hyper, used):
        for count in range(numbers + 1):
            for changed in itertools.combinations(known, count):
                options = [[v for v in VALUES[name] if v != getattr(hyper, name)] for name in changed]
                for values in itertools.product(*options):
                    settings.append(base._replace(**dict(zip(changed, values, strict=True))))
                    counts.append(count)
    columns = HyperParams(*(np.array(column)[:, None] for column in zip(*settings, strict=True)))
    return settings, counts, columns


def _with_new_numbers(names: Sequence[str], hyper: HyperParams, known: Sequence[str]) -> Iterator[HyperParams]:
    """Yield hyper-parameters in which those that are not known take all usual values."""
    new = [name for name in names if name in VALUES and name not in known]
    for values in itertools.product(*(VALUES[name] for name in new)):
        yield hyper._replace(**dict(zip(new, values, strict=True)))


def _short(rate: float, usual: float) -> float:
    """Return the shortest number close to a learning rate, or the usual learning rate if it is close."""
    for value in (usual, *(float(f"{rate:.{digits}g}") for digits in (1, 2, 3))):
        if abs(value - rate) <= LOOSE * abs(rate):
            return value
    return rate
