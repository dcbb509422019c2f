"""Identify optimizers with one rule for matrices and another for vectors, such as weight decay of matrices only."""

from typing import NamedTuple

import numpy as np

from nnjax.optcheck.calling.adapter import Adapter
from nnjax.optcheck.rules.update_rule import Formula
from nnjax.optcheck.search.budget import Budget
from nnjax.optcheck.search.diagnosis import target_of
from nnjax.optcheck.search.fitting import Target, reproduces
from nnjax.optcheck.search.rule_search import identify_formula
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.optcheck.trace.gradient_script import GradientScript, gradient_script, second_script
from nnjax.optcheck.trace.traces import trace

MATRICES, OTHERS = "matrices", "vectors and scalars"
ZERO_UPDATES = (
    "all updates are zero, so no rule can be named; likely reasons: the learning rate is 0, the new parameters are not "
    "returned, or the optimizer changes a copy of the parameters"
)
PART_FITS = 80  # enough for all library rules with other numbers


class ZeroUpdatesError(ValueError):
    """Raised for an optimizer whose updates are all zero."""


class PartialRule(NamedTuple):
    """A formula and the leaves that follow it."""

    leaves: str  # MATRICES, OTHERS, or "" for all leaves
    formula: Formula


def identify_optimizer(adapter: Adapter, budget: Budget, deadline: Deadline) -> list[PartialRule]:
    """Return the rule of an optimizer, see `identify_by_dimensions`; [] if a second script refutes it.

    Many rules fit an optimizer whose updates are all zero, so none of them is named.

    Args:
      adapter: the optimizer.
      budget: number of rules to fit.
      deadline: the time limit, checked before every step.

    Raises:
      ZeroUpdatesError: if all updates are zero.
    """

    def target(script: GradientScript) -> Target:
        return target_of(trace(adapter, script, "float64", deadline), script, "float64")

    first = target(gradient_script(ndim=adapter.ndim))
    if (first.updates == 0).all():
        raise ZeroUpdatesError(ZERO_UPDATES)
    parts = identify_by_dimensions(first, budget)
    return parts if parts and _reproduce(parts, target(second_script(ndim=adapter.ndim))) else []


def _reproduce(parts: list[PartialRule], target: Target) -> bool:
    """Return True if each formula reproduces the updates of its leaves."""
    matrices = _is_matrix(target)
    masks = {"": np.ones_like(matrices), MATRICES: matrices, OTHERS: ~matrices}
    return all(reproduces(formula, target.select(np.flatnonzero(masks[leaves]))) for leaves, formula in parts)


def _is_matrix(target: Target) -> np.ndarray:
    """Return a mask of the elements whose leaf has at least two dimensions."""
    return np.array([len(shape) > 1 for shape in target.inputs.shapes])[target.inputs.leaf]


def identify_by_dimensions(target: Target, budget: Budget) -> list[PartialRule]:
    """Return the formula of all leaves, or one for matrices and one for other leaves; [] if a formula is unknown.

    Args:
      target: the updates to reproduce.
      budget: number of rules to fit for all leaves together.
    """
    if matches := identify_formula(target, None, budget):
        return [PartialRule("", matches[0].formula)]
    is_matrix = _is_matrix(target)
    if is_matrix.all() or not is_matrix.any():
        return []
    parts = []
    for leaves, mask in ((MATRICES, is_matrix), (OTHERS, ~is_matrix)):
        matches = identify_formula(target.select(np.flatnonzero(mask)), None, Budget(PART_FITS))
        if not matches:
            return []
        parts.append(PartialRule(leaves, matches[0].formula))
    return parts
