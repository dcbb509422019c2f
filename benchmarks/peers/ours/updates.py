"""Updates alone."""

from benchmarks.jobs.definitions import Optimizing, Program
from benchmarks.peers._jax.optimizer import updates
from nnjax import optim


def optimizer(job: Optimizing, form: str) -> Program:
    """In a scan, or a jitted call for each update."""
    rules = {
        "sgd": lambda: optim.sgd(job.rate),
        "adam": lambda: optim.adam(job.rate),
        "adamw": lambda: optim.adamw(job.rate, weight_decay=job.decay),
        "lion": lambda: optim.lion(job.rate, weight_decay=0.0),
    }
    return updates(job, rules[job.rule](), form)
