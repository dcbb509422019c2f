"""Compute how much rounding may change updates, and find the first larger difference."""

from typing import NamedTuple

import numpy as np

from nnjax.optcheck.trace.gradient_script import PATTERNS, GradientScript, flatten
from nnjax.optcheck.trace.traces import Trace

# Equivalent implementations stay below these bounds (1e-10 in float64, and 8e-5 in float32, because 1 - 0.999 loses
# 10 bits). The closest known wrong rules exceed them (3e-6 and 8e-4).
RELATIVE = {"float64": 1e-9, "float32": 2e-4}
MIXED = {"float64": 1e-8, "float32": 1e-3}  # relative to a leaf's largest update, because iterations amplify rounding
EPS = {"float64": float(np.finfo(np.float64).eps), "float32": float(np.finfo(np.float32).eps)}
TEXT = (
    "tolerance: |u - u'| ≤ {r:g}·max(|u|, |u'|) + 8 ε·(largest |u'| so far) + 2 ε·|θ|, with ε of {dtype}; "
    "in float32, plus twice the rounding error of the reference"
)


class Divergence(NamedTuple):
    """The first difference that rounding does not explain."""

    step: int  # counted from 1
    leaf: str
    place: tuple[int, ...]  # index in the leaf
    gradient: float
    parameter: float
    pattern: str  # pattern of the gradient over time
    candidate: float
    reference: float
    ratio: float  # difference divided by tolerance


def rounding_bound(updates: np.ndarray, reference: np.ndarray, params: np.ndarray, dtype: str) -> np.ndarray:
    """Return how much rounding may change each update; see `TEXT`. All arrays have shape (steps, elements)."""
    largest = np.fmax(np.abs(updates), np.abs(reference))
    largest_so_far = np.fmax.accumulate(np.abs(reference), axis=0)
    return RELATIVE[dtype] * largest + 8 * EPS[dtype] * largest_so_far + 2 * EPS[dtype] * np.abs(params)


def tolerance(candidate: Trace, reference: Trace, dtype: str, reference_error: np.ndarray | float = 0.0) -> np.ndarray:
    """Return the tolerance (steps, elements): `rounding_bound`, plus twice the rounding error of the reference.

    If the elements of a leaf mix, a share of its largest update is added.
    """
    params = np.fmax(np.abs(candidate.params), np.abs(reference.params))
    bound = rounding_bound(candidate.updates, reference.updates, params, dtype) + 2 * reference_error
    return bound + MIXED[dtype] * np.fmax(candidate.leaf_size, reference.leaf_size)


def within(updates: np.ndarray, target: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Return a mask of the elements that differ by at most the bound. NaN equals NaN, and an infinity equals itself."""
    with np.errstate(invalid="ignore"):
        close = np.abs(updates - target) <= bound
    return close | (updates == target) | (np.isnan(updates) & np.isnan(target))


def first_divergence(
    candidate: Trace, reference: Trace, script: GradientScript, bound: np.ndarray
) -> Divergence | None:
    """Return a difference in the first step that has any, or None if there is none.

    Among the clear differences of this step, it is the one whose gradient is closest to ±1.
    """
    wrong = ~within(candidate.updates, reference.updates, bound)
    if not wrong.any():
        return None
    step = int(wrong.any(1).argmax())
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.abs(candidate.updates[step] - reference.updates[step]) / bound[step]
    ratio = np.where(wrong[step], np.nan_to_num(ratio, nan=np.inf), 0.0)
    gradients = flatten(script.grads)[step]
    distance_from_1 = np.abs(np.log10(np.maximum(np.abs(gradients), 1e-30)))  # prefer gradients of ordinary size
    clear = wrong[step] & (ratio > min(1e3, float(ratio.max()) / 2))
    element = int(np.where(clear, distance_from_1, np.inf).argmin())
    leaf = int(script.leaf[element])
    shape = script.shapes[leaf]
    return Divergence(
        step=step + 1,
        leaf=script.leaf_names[leaf],
        place=tuple(int(i) for i in np.unravel_index(element - int(script.leaf.searchsorted(leaf)), shape)),
        gradient=float(gradients[element]),
        parameter=float(candidate.params[step, element]),
        pattern=list(PATTERNS)[script.pattern[element]],
        candidate=float(candidate.updates[step, element]),
        reference=float(reference.updates[step, element]),
        ratio=float(ratio[element]),
    )
