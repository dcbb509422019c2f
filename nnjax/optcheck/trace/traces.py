"""Both optimizers on the same script, and where they first part."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnjax.optcheck.rules.update_rule import Seen
from nnjax.optcheck.trace.adapters import Candidate
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.optcheck.trace.gradient_script import PATTERNS, STEPS, Script, at, flat, names
from nnjax.types import PyTree

Mode = Literal["eager", "jit", "scan"]

RELATIVE = {"float64": 1e-9, "float32": 2e-4}
EPS = {"float64": float(np.finfo(np.float64).eps), "float32": float(np.finfo(np.float32).eps)}
RULE = (
    "rounding may make |Δ| ≤ r·max(|u|, |u'|) + 8 ε·(largest |u'| so far) + 2 ε·|θ|, with ε of the dtype and "
    "r = {r:g}: what correct forms of one formula differ by is below (float64 1e-10, float32 8e-5, for 1 - β₂ of .999 "
    "loses 13 bits), the nearest wrong formulas known are above (3e-6, 8e-4); in float32 also twice what the reference "
    "itself loses there"
)


class Trace(NamedTuple):
    """What an optimizer did with a script."""

    updates: np.ndarray  # (steps, elements) float64
    params: np.ndarray  # (steps, elements), before each step
    mode: Mode


class Divergence(NamedTuple):
    """The first difference that is no rounding."""

    step: int  # from 1
    leaf: str
    place: tuple[int, ...]  # in the leaf
    gradient: float
    params: float
    pattern: str
    candidate: float
    reference: float
    times: float  # above what rounding may make


def run(
    candidate: Candidate, given: Script, dtype: str, mode: Mode, deadline: Deadline, params: PyTree = None
) -> Trace:
    """All steps of the script.

    Args:
      candidate: what to run.
      given: the script.
      dtype: of parameters and gradients.
      mode: how the steps are run; those that are not pure only run eagerly.
      deadline: looked at before every step.
      params: (steps, ...) to give instead of the script's, those of an optimizer that keeps its own.
    """
    params = given.params if params is None else params
    with jax.enable_x64(dtype == "float64"):
        array = jnp.asarray if candidate.pure else np.asarray
        first = jax.tree.map(array, at(params, 0, dtype))
        carry = candidate.init(first)

        def step(carry: Any, each: tuple[PyTree, PyTree]) -> tuple[Any, tuple[PyTree, PyTree]]:
            given, grads = each
            before = given if candidate.params_of is None else candidate.params_of(carry)
            updates, carry = candidate.step(carry, given, grads)
            return carry, (updates, before)

        if mode == "scan":
            cast = [jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree) for tree in (params, given.grads)]
            _, (updates, before) = jax.jit(lambda carry, xs: lax.scan(step, carry, xs))(carry, tuple(cast))
            return Trace(flat(updates), flat(before), mode)
        one = jax.jit(step) if mode == "jit" else step
        rows: list[tuple[np.ndarray, np.ndarray]] = []
        for k in range(STEPS):
            deadline.look()
            each = tuple(jax.tree.map(array, at(tree, k, dtype)) for tree in (params, given.grads))
            carry, (updates, before) = one(carry, each)
            rows.append((_row(updates), _row(before)))
    return Trace(np.stack([u for u, _ in rows]), np.stack([p for _, p in rows]), mode)


def _row(tree: PyTree) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).reshape(-1) for leaf in jax.tree.leaves(tree)])


def allowed(one: np.ndarray, other: np.ndarray, params: np.ndarray, dtype: str) -> np.ndarray:
    """What rounding may make of a difference, see `RULE`. (steps, elements) each."""
    eps = EPS[dtype]
    largest = np.fmax(np.abs(one), np.abs(other))
    so_far = np.fmax.accumulate(np.abs(other), axis=0)
    return RELATIVE[dtype] * largest + 8 * eps * so_far + 2 * eps * np.abs(params)


def limit(one: Trace, other: Trace, dtype: str, lost: np.ndarray | float = 0.0) -> np.ndarray:
    """(steps, elements), what rounding may make of the difference of two; `lost` is what it is known to cost one."""
    return allowed(one.updates, other.updates, np.fmax(np.abs(one.params), np.abs(other.params)), dtype) + 2 * lost


def differs(one: Trace, other: Trace, limits: np.ndarray) -> np.ndarray:
    """(steps, elements), where two traces differ by more than rounding; NaN is like NaN."""
    a, b = one.updates, other.updates
    with np.errstate(invalid="ignore"):
        near = np.abs(a - b) <= limits
    return ~(near | (a == b) | (np.isnan(a) & np.isnan(b)))


def first_divergence(one: Trace, other: Trace, given: Script, limits: np.ndarray) -> Divergence | None:
    """The first step at which they differ, and there of those clearly above rounding the most ordinary one."""
    wrong = differs(one, other, limits)
    if not wrong.any():
        return None
    step = int(wrong.any(1).argmax())
    with np.errstate(invalid="ignore", divide="ignore"):
        times = np.nan_to_num(np.abs(one.updates[step] - other.updates[step]) / limits[step], nan=np.inf)
    size = np.abs(np.log10(np.maximum(np.abs(flat(given.grads)[step]), 1e-30)))  # ordinary ones are believed sooner
    clear = wrong[step] & (times > min(1e3, float(times.max()) / 2))
    element = int(np.where(clear, size, np.inf).argmin())
    sizes = [leaf.size for leaf in given.pattern]
    starts = np.cumsum([0, *sizes])
    leaf = int(np.searchsorted(starts, element, side="right") - 1)
    inside = element - int(starts[leaf])
    grads = jax.tree.leaves(given.grads)[leaf]
    return Divergence(
        step + 1,
        names(given.grads)[leaf],
        tuple(int(i) for i in np.unravel_index(inside, grads.shape[1:])),
        float(grads[step].reshape(-1)[inside]),
        float(one.params[step, element]),
        list(PATTERNS)[given.pattern[leaf][inside]],
        float(one.updates[step, element]),
        float(other.updates[step, element]),
        float(times[element]),
    )


def seen_by(trace: Trace, given: Script) -> Seen:
    """What forms are given to be held against a trace."""
    sizes = [leaf.size for leaf in given.pattern]
    return Seen(flat(given.grads), trace.params, given.rates, np.repeat(np.arange(len(sizes)), sizes), len(sizes))
