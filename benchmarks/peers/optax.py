"""Run the updates of optax, with separate arrays or with all parameters in one array."""

import optax

from benchmarks.jobs.definitions import Dispatch, Updates
from benchmarks.jobs.program import Program
from benchmarks.peers._jax.dispatch import optimizer_calls
from benchmarks.peers._jax.updates import optax_updates

NAME = "optax"
NEEDS = ("optax",)
FORMS = {"updates": ("scan", "calls", "flatten, scan", "flatten, calls"), "dispatch": ("sgd",)}
RARE = ("flatten, scan", "flatten, calls")


def updates(job: Updates, form: str) -> Program:
    """Update with or without `optax.flatten`, in a scan or with one jitted call per update."""
    rules = {
        "sgd": lambda: optax.sgd(job.rate),
        "adam": lambda: optax.adam(job.rate),
        "adamw": lambda: optax.adamw(job.rate, weight_decay=job.decay),
        "lion": lambda: optax.lion(job.rate, weight_decay=0.0),
    }
    rule = rules[job.rule]()
    rule = optax.flatten(rule) if form.startswith("flatten") else rule
    return optax_updates(job, rule, form.removeprefix("flatten, "))


def dispatch(job: Dispatch, form: str) -> Program:
    """Call a jitted update of SGD."""
    return optimizer_calls(job, optax.sgd(1.0))
