"""Run an optimizer on the scripted gradients and record its updates."""

from typing import Any, NamedTuple

import jax
import numpy as np

from nnjax.optcheck.calling.adapter import Adapter
from nnjax.optcheck.rules.families import update_array
from nnjax.optcheck.rules.update_rule import Formula, Inputs
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.optcheck.trace.gradient_script import GradientScript, at_step, flatten, rule_inputs
from nnjax.types import PyTree

ROUNDINGS, SIZE = 4, 4  # number and size (in ε) of the random changes to gradients for `rounding_error`
CANNOT_TRACE = (jax.errors.JAXTypeError, jax.errors.JAXIndexError, TypeError, ValueError, AttributeError)


class Trace(NamedTuple):
    """The updates of an optimizer, in float64."""

    updates: np.ndarray  # (steps, elements)
    params: np.ndarray  # (steps, elements), before each step
    leaf_size: np.ndarray | float = 0.0  # (steps, elements), largest update of a leaf so far if elements mix, else 0


def trace(
    adapter: Adapter, script: GradientScript, dtype: str, deadline: Deadline, params: PyTree | None = None
) -> Trace:
    """Run all steps of the script and return the updates; use jit if possible, because it is faster.

    Args:
      adapter: the optimizer to run.
      script: the gradients, parameters and schedule.
      dtype: the dtype of parameters and gradients.
      deadline: the time limit, checked before every step.
      params: leaves (steps, ...) that replace the parameters of the script; None to keep them.

    Raises:
      TimeLimitError: at the deadline.
      Exception: any exception of the optimizer.
    """
    params = script.params if params is None else params
    if adapter.pure:
        try:
            return _run(adapter._replace(step=jax.jit(adapter.step)), script, dtype, deadline, params)
        except CANNOT_TRACE:  # the contract checks report this error
            pass
    return _run(adapter, script, dtype, deadline, params)


def trace_formula(formula: Formula, script: GradientScript, params: np.ndarray) -> Trace:
    """Return the updates of a formula for the scripted gradients and these parameters (steps, elements)."""
    updates = update_array(formula, rule_inputs(script)._replace(params=params))
    return Trace(updates, params, _leaf_size(updates, params, script))


def rounding_error(formula: Formula, script: GradientScript, result: Trace) -> np.ndarray:
    """Estimate how much the updates of a formula (steps, elements) change if gradients are rounded to float32.

    The error is large if moments cancel in a ratio that is then clipped. The size of earlier updates does not show it.
    """
    inputs, rng, error = trace_inputs(result, script), np.random.default_rng(0), np.zeros_like(result.updates)
    for _ in range(ROUNDINGS):
        change = rng.choice([-SIZE, SIZE], inputs.grads.shape) * float(np.finfo(np.float32).eps)
        values = update_array(formula, inputs._replace(grads=inputs.grads * (1 + change)))
        with np.errstate(invalid="ignore"):
            error = np.fmax(error, np.abs(values - result.updates))
    return error


def trace_inputs(result: Trace, script: GradientScript) -> Inputs:
    """Return the inputs with which a trace was recorded."""
    return rule_inputs(script)._replace(params=result.params)


def _run(adapter: Adapter, script: GradientScript, dtype: str, deadline: Deadline, params: PyTree) -> Trace:
    def inputs(tree: PyTree, step: int) -> PyTree:
        return jax.tree.map(adapter.array, at_step(tree, step, dtype))

    rows: list[tuple[np.ndarray, np.ndarray]] = []
    with jax.enable_x64(dtype == "float64"):
        state = adapter.init(inputs(params, 0))
        for k in range(len(script.rates)):
            deadline.check()
            before = inputs(params, k) if adapter.params_of is None else adapter.params_of(state)
            updates, state = adapter.step(state, inputs(params, k), inputs(script.grads, k))
            rows.append((_row(updates), _row(before)))
    updates, before = np.stack([update for update, _ in rows]), np.stack([before for _, before in rows])
    return Trace(updates, before, _leaf_size(updates, before, script))


def _leaf_size(updates: np.ndarray, params: np.ndarray, script: GradientScript) -> np.ndarray | float:
    """Return the largest update of each leaf so far if its elements mix, because rounding then affects the whole leaf.

    Elements mix if any element changes at the first step although its gradient and its parameter are 0.
    """
    untouched = (flatten(script.grads)[0] == 0) & (params[0] == 0)
    if not (untouched & (np.nan_to_num(updates[0]) != 0)).any():
        return 0.0
    sizes = np.zeros((len(updates), len(script.leaf_names)))
    for k, row in enumerate(np.nan_to_num(np.abs(updates))):
        np.maximum.at(sizes[k], script.leaf, row)
    return np.maximum.accumulate(sizes, axis=0)[:, script.leaf]


def _row(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).reshape(-1) for leaf in jax.tree.leaves(tree)])
