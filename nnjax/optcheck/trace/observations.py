"""Run both optimizers on the scripted gradients in one dtype, and summarise their differences."""

from typing import NamedTuple

import numpy as np

from nnjax.optcheck.calling.adapter import Adapter
from nnjax.optcheck.calling.kinds import NotAnOptimizerError
from nnjax.optcheck.rules.families import update_array
from nnjax.optcheck.rules.update_rule import Formula
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.optcheck.trace.gradient_script import MAGNITUDES, PATTERNS, GradientScript, gradient_script, unflatten
from nnjax.optcheck.trace.tolerance import Divergence, first_divergence, tolerance, within
from nnjax.optcheck.trace.traces import Trace, rounding_error, trace, trace_formula, trace_inputs
from nnjax.types import PyTree

ROUNDING = 0.02  # largest relative rounding error of a candidate that matches in float64


class Observation(NamedTuple):
    """The updates of both optimizers on the same scripted gradients."""

    name: str  # "float64", "float32", or "float64, learning rate changes at every step"
    dtype: str
    script: GradientScript
    candidate: Trace
    reference: Trace
    reference_error: np.ndarray | float = 0.0  # (steps, elements), rounding error of the reference; 0 if unknown
    candidate_error: np.ndarray | float = 0.0  # the same for the candidate, if it matches in float64


class Pass(NamedTuple):
    """The difference between the two optimizers in one observation."""

    name: str
    dtype: str
    divergence: Divergence | None  # None if they agree
    share: dict[str, float]  # share of updates that differ, by magnitude of the gradient
    leaves: tuple[str, ...]  # leaves in which updates differ; () for all or none
    patterns: tuple[str, ...]  # gradient patterns at which updates differ; () for all or none


def observe(
    candidate: Adapter,
    reference: Adapter | Formula,
    dtype: str,
    deadline: Deadline,
    script: GradientScript | None = None,
) -> Observation:
    """Run both optimizers on the same gradients, and return their updates.

    Parameters come from the script. If one optimizer stores its own parameters, both optimizers use those instead.

    Args:
      candidate: the optimizer to check.
      reference: the reference, or its formula.
      dtype: the dtype of parameters and gradients.
      deadline: the time limit, checked before every step.
      script: the scripted gradients; None means the default script without a schedule.

    Raises:
      TimeLimitError: at the deadline.
      Exception: any exception of an optimizer, with a note that says which one raised it.
    """
    script = script or gradient_script(ndim=max(candidate.ndim, getattr(reference, "ndim", 0)))

    def run(role: str, adapter: Adapter, params: PyTree | None = None) -> Trace:
        try:
            return trace(adapter, script, dtype, deadline, params)
        except NotAnOptimizerError:
            raise
        except Exception as error:
            error.add_note(f"optcheck: raised by the {role}, with {dtype} leaves of 0 to 4 dimensions")
            raise

    def own_params(adapter: Adapter, result: Trace) -> PyTree | None:
        return None if adapter.params_of is None else unflatten(result.params, script.params)

    if isinstance(reference, Formula):
        candidate_trace = run("candidate", candidate)
        reference_trace = trace_formula(reference, script, candidate_trace.params)
    elif candidate.params_of is None:
        reference_trace = run("reference", reference)
        candidate_trace = run("candidate", candidate, own_params(reference, reference_trace))
    else:
        candidate_trace = run("candidate", candidate)
        reference_trace = run("reference", reference, own_params(candidate, candidate_trace))
    return Observation(dtype, dtype, script, candidate_trace, reference_trace)


def observe_both_dtypes(
    candidate: Adapter, reference: Adapter | Formula, deadline: Deadline
) -> tuple[Observation, Observation]:
    """Return the observations of both optimizers in float64 and in float32.

    The float32 observation includes the rounding error of the reference, because the tolerance must allow for it. This
    error can be large: for example, RAdam's ρ is a small difference between large numbers. If the updates are equal in
    float64, the rounding error of the candidate is also included, up to a small share of its updates.
    """
    double, single = (observe(candidate, reference, dtype, deadline) for dtype in ("float64", "float32"))
    if isinstance(reference, Adapter):
        error = np.abs(single.reference.updates - double.reference.updates)
    else:
        error = rounding_error(reference, single.script, single.reference)
    own: np.ndarray | float = 0.0
    if summarise(double).divergence is None:
        updates = single.candidate.updates
        own = np.nan_to_num(np.minimum(np.abs(updates - double.candidate.updates), ROUNDING * np.abs(updates)))
    return double, single._replace(reference_error=error, candidate_error=own)


def with_rounded_product(observation: Observation, reference: Formula | None) -> Observation:
    """Add the rounding error of PyTorch's NAdam, which rounds a product to float32 even for float64 parameters."""
    if reference is None or getattr(reference.rule, "product_storage", "raw") != "float32":
        return observation
    inputs = trace_inputs(observation.reference, observation.script)
    exact = reference._replace(rule=reference.rule._replace(product_storage="raw"))
    error = np.abs(update_array(reference, inputs) - update_array(exact, inputs))
    return observation._replace(reference_error=observation.reference_error + error)


def loss_by_rounding(observation: Observation) -> float:
    """Return the largest relative difference that only the rounding error of the candidate explains; 0 if none."""
    candidate, reference = observation.candidate.updates, observation.reference.updates
    bound = tolerance(observation.candidate, observation.reference, observation.dtype, observation.reference_error)
    wrong = ~within(candidate, reference, bound)
    return float((np.abs(candidate - reference)[wrong] / np.abs(reference[wrong])).max(initial=0.0))


def summarise(observation: Observation) -> Pass:
    """Return the first difference, and the magnitudes, leaves and patterns at which the optimizers differ."""
    name, dtype, script, candidate, reference, *errors = observation
    bound = tolerance(candidate, reference, dtype, sum(errors))
    wrong = ~within(candidate.updates, reference.updates, bound)
    leaves = {_without_half(script.leaf_names[i]) for i in np.unique(script.leaf[wrong.any(0)])}
    all_leaves = {_without_half(leaf) for leaf in script.leaf_names}
    patterns = [pattern for i, pattern in enumerate(PATTERNS) if wrong[:, script.pattern == i].any()]
    return Pass(
        name=name,
        dtype=dtype,
        divergence=first_divergence(candidate, reference, script, bound),
        share={f"{size:.0e}": float(wrong[:, script.magnitude == size].mean()) for size in MAGNITUDES},
        # temperature may agree, because it has a single element
        leaves=() if leaves >= all_leaves - {"temperature"} else tuple(sorted(leaves)),
        patterns=() if len(patterns) == len(PATTERNS) else tuple(patterns),
    )


def elements_of(leaves: tuple[str, ...], script: GradientScript) -> np.ndarray:
    """Return the indices of the elements of these leaves, in both halves of the script ("zero" and "normal")."""
    indices = [i for i, name in enumerate(script.leaf_names) if _without_half(name) in leaves]
    return np.flatnonzero(np.isin(script.leaf, indices))


def _without_half(leaf_name: str) -> str:
    """Remove the first part of a path, which is "zero" or "normal"."""
    return leaf_name.split("/", 1)[1]
