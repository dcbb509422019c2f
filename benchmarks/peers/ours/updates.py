"""Run only the updates of nnjax's optimizers."""

from benchmarks.jobs.definitions import Updates
from benchmarks.jobs.program import Program
from benchmarks.peers._jax.updates import optax_updates
from nnjax import optim


def updates(job: Updates, form: str) -> Program:
    """Update in a scan, or with one jitted call per update."""
    rules = {
        "sgd": lambda: optim.sgd(job.rate),
        "adam": lambda: optim.adam(job.rate),
        "adamw": lambda: optim.adamw(job.rate, weight_decay=job.decay),
        "lion": lambda: optim.lion(job.rate, weight_decay=0.0),
    }
    return optax_updates(job, rules[job.rule](), form)
