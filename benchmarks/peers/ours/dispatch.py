"""Measure the overhead of calling a jitted update of nnjax's SGD."""

from benchmarks.jobs.definitions import Dispatch
from benchmarks.jobs.program import Program
from benchmarks.peers._jax.dispatch import optimizer_calls
from nnjax import optim


def dispatch(job: Dispatch, form: str) -> Program:
    """Call a jitted update of SGD."""
    return optimizer_calls(job, optim.sgd(1.0))
