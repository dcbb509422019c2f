"""Measure the overhead of calling a jitted function on a list of arrays."""

from benchmarks.jobs.definitions import Dispatch
from benchmarks.jobs.program import Program
from benchmarks.peers._jax.dispatch import jitted_calls, zero_leaves


def dispatch(job: Dispatch, form: str) -> Program:
    """Call a jitted function on the tree of arrays."""
    return jitted_calls(job, lambda arrays: [array + 1 for array in arrays], zero_leaves(job))
