"""Compare the first recorded steps with library rules and their neighbours, before any rule is fitted."""

import functools
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nnjax.optcheck.rules.families import is_by_leaf, neighbours, update_array, with_usual_values
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES
from nnjax.optcheck.rules.neighbours import Edit
from nnjax.optcheck.rules.update_rule import Formula, Inputs
from nnjax.optcheck.search.fitting import Target, fit_learning_rate, sample_of
from nnjax.optcheck.trace.tolerance import within

STEPS = 6  # number of recorded steps that are compared
LOOSE = 1e-3  # allowed relative difference, because the learning rate is only estimated
SHARE = 0.45  # share of updates that must agree; not all do if the learning rate does not scale the weight decay


class Choice(NamedTuple):
    """A library rule, or a library rule with one different choice."""

    formula: Formula
    edits: tuple[Edit, ...] = ()


class _Script(NamedTuple):
    """The inputs of a rule as hashable values, which are the key of the cache of updates."""

    size: tuple[int, int]
    contents: tuple[bytes, ...]  # gradients, parameters, rates, leaf and row
    leaf_count: int
    shapes: tuple[tuple[int, ...], ...]


def library_choices() -> Iterator[Choice]:
    """Yield all library rules, then their neighbours. Hyper-parameters that a neighbour adds have usual values."""
    seen = set()
    for start in LIBRARY_RULES.values():
        if start not in seen:
            seen.add(start)
            yield Choice(start)
    for start in LIBRARY_RULES.values():
        for edits, rule in neighbours(start.rule):
            formula = with_usual_values(rule, start.hyper)
            if formula not in seen:
                seen.add(formula)
                yield Choice(formula, edits)


def similar_choices(target: Target) -> tuple[list[Choice], int]:
    """Return the choices whose first updates are similar to the target's, and the number of all choices.

    Each choice has its default hyper-parameters, or a fitted learning rate, or is returned in both forms.
    """
    first = target.first_steps(STEPS)
    part = first.select(sample_of(first))
    choices, values = _first_updates(_script_of(first.inputs))
    bound = part.bound + LOOSE * np.abs(part.updates)
    with np.errstate(all="ignore"):
        ratios = np.abs(part.updates / values).reshape(len(choices), -1)
        ratios[~(np.isfinite(ratios) & (ratios > 0))] = np.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # raised if no ratio is finite
            factors = np.nan_to_num(np.nanmedian(ratios, axis=1), nan=1.0)
        agree = within(values, part.updates, bound).mean((1, 2)) >= SHARE
        agree_scaled = within(factors[:, None, None] * values, part.updates, bound).mean((1, 2)) >= SHARE
    similar = []
    for i in np.flatnonzero(agree | agree_scaled):
        if agree_scaled[i]:
            similar.append(choices[i]._replace(formula=fit_learning_rate(choices[i].formula, first)))
        if agree[i]:
            similar.append(choices[i])
    return similar, len(choices)


def _script_of(inputs: Inputs) -> _Script:
    grads, params, rates, leaf, leaf_count, row, shapes, _ = inputs
    contents = [np.ascontiguousarray(array).tobytes() for array in (grads, params, rates, leaf.astype(np.int64), row)]
    return _Script(grads.shape, tuple(contents), leaf_count, tuple(shapes))


@functools.lru_cache(maxsize=2)
def _first_updates(script: _Script) -> tuple[list[Choice], np.ndarray]:
    """Return all choices and their updates for a sample of the elements, an array (choices, steps, elements)."""
    grads, params = (np.frombuffer(part).reshape(script.size) for part in script.contents[:2])
    leaf, row = (np.frombuffer(part, np.int64) for part in script.contents[3:])
    inputs = Inputs(grads, params, np.frombuffer(script.contents[2]), leaf, script.leaf_count, row, script.shapes)
    whole = Target(grads, grads, inputs)
    elements, choices = sample_of(whole), list(library_choices())
    part = whole.select(elements)
    values = [
        update_array(choice.formula, inputs)[:, elements]
        if is_by_leaf(choice.formula.rule)
        else update_array(choice.formula, part.inputs)
        for choice in choices
    ]
    return choices, np.stack(values).astype(np.float32)
