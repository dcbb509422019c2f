"""optax, leaf by leaf and with all leaves in one array."""

import optax

from benchmarks.jobs.definitions import Dispatching, Optimizing, Program
from benchmarks.peers._jax.dispatch import descents
from benchmarks.peers._jax.optimizer import updates

NAME = "optax"
NEEDS = ("optax",)
FORMS = {"optimizer": ("scan", "calls", "flatten, scan", "flatten, calls"), "dispatch": ("sgd",)}
RARE = ("flatten, scan", "flatten, calls")


def optimizer(job: Optimizing, form: str) -> Program:
    """With `optax.flatten` or without; in a scan, or a jitted call for each update."""
    rules = {
        "sgd": lambda: optax.sgd(job.rate),
        "adam": lambda: optax.adam(job.rate),
        "adamw": lambda: optax.adamw(job.rate, weight_decay=job.decay),
        "lion": lambda: optax.lion(job.rate, weight_decay=0.0),
    }
    rule = rules[job.rule]()
    return updates(job, optax.flatten(rule) if form.startswith("flatten") else rule, form.removeprefix("flatten, "))


def dispatch(job: Dispatching, form: str) -> Program:
    """A jitted update of gradient descent."""
    return descents(job, optax.sgd(1.0))
