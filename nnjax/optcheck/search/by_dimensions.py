"""Identify optimizers with one rule for matrices and another for vectors, such as weight decay of matrices only."""

from typing import NamedTuple

import numpy as np

from nnjax.optcheck.rules.update_rule import Formula
from nnjax.optcheck.search.fitting import Target
from nnjax.optcheck.search.rule_search import Budget, identify_formula

PART_FITS = 80  # enough for all library rules with other numbers


class PartialRule(NamedTuple):
    """A formula and the leaves that follow it."""

    leaves: str  # "matrices", "vectors and scalars", or "" for all leaves
    formula: Formula


def identify_by_dimensions(target: Target, budget: Budget) -> list[PartialRule]:
    """Return the formula of all leaves, or one for matrices and one for other leaves; [] if a formula is unknown.

    Args:
      target: the updates to reproduce.
      budget: number of rules to fit for all leaves together.
    """
    if matches := identify_formula(target, None, budget):
        return [PartialRule("", matches[0].formula)]
    is_matrix = np.array([len(shape) > 1 for shape in target.inputs.shapes])[target.inputs.leaf]
    if is_matrix.all() or not is_matrix.any():
        return []
    parts = []
    for leaves, mask in (("matrices", is_matrix), ("vectors and scalars", ~is_matrix)):
        matches = identify_formula(target.select(np.flatnonzero(mask)), None, Budget(PART_FITS))
        if not matches:
            return []
        parts.append(PartialRule(leaves, matches[0].formula))
    return parts
