"""Observations and diagnoses for the tests of optcheck. The updates of references are recorded once."""

import functools

import numpy as np
import pytest

from nnjax.optcheck.calling.adapter import Adapter
from nnjax.optcheck.calling.factories import build
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES
from nnjax.optcheck.search.diagnosis import MAX_FITS, diagnose
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.optcheck.trace.gradient_script import gradient_script, second_script
from nnjax.optcheck.trace.observations import Observation, observe, observe_both_dtypes, summarise
from nnjax.optcheck.trace.traces import trace

LR = 1e-3
SCRIPT = gradient_script()


def torch_of(name, **arguments):
    torch = pytest.importorskip("torch")
    return functools.partial(getattr(torch.optim, name), lr=LR, **arguments)


@functools.cache
def reference_trace(name, dtype):
    return trace(build(name), SCRIPT, dtype, Deadline(None))


def observation(candidate, reference, dtype="float64"):
    """Both in one dtype; a reference by name is not run again."""
    ours, theirs = build(candidate), build(reference)
    if isinstance(reference, str) and isinstance(theirs, Adapter) and ours.params_of is None:
        updates = reference_trace(reference, dtype)
        error = np.abs(updates.updates - reference_trace(reference, "float64").updates)
        return Observation(dtype, dtype, SCRIPT, trace(ours, SCRIPT, dtype, Deadline(None)), updates, error)
    if dtype == "float64":
        return observe(ours, theirs, dtype, Deadline(None))
    return observe_both_dtypes(ours, theirs, Deadline(None))[1]


def difference(candidate, reference, dtype="float64"):
    """The first difference above rounding, or None."""
    return summarise(observation(candidate, reference, dtype)).divergence


def diagnosis(candidate, reference, dtype="float64", max_fits=MAX_FITS):
    """The diagnosis of two optimizers that differ."""
    both = observation(candidate, reference, dtype)
    where = summarise(both)
    assert where.divergence is not None
    guess = LIBRARY_RULES.get(reference) if isinstance(reference, str) else None
    repeat = functools.partial(observe, build(candidate), build(reference), dtype, Deadline(None), second_script())
    return diagnose(where, both, guess, max_fits, repeat)


def cause_ids(explanation):
    return {cause.id for cause in explanation.causes}
