"""The cost of a call."""

from benchmarks.leaves import descents
from benchmarks.work import Dispatching, Program
from nnjax import optim


def dispatch(job: Dispatching, form: str) -> Program:
    """A jitted update of gradient descent."""
    return descents(job, optim.sgd(1.0))
