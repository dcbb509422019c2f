"""The cost of a call."""

from benchmarks.jobs.definitions import Dispatching, Program
from benchmarks.peers._jax.dispatch import descents
from nnjax import optim


def dispatch(job: Dispatching, form: str) -> Program:
    """A jitted update of gradient descent."""
    return descents(job, optim.sgd(1.0))
