"""Compute the fingerprint of a run: short strings that describe everything that determines its exact result."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import data
from nnjax._reproducible import program_settings
from nnjax._version import __version__
from nnjax.storage.checkpoint import digest
from nnjax.train.engine.device_loop import select_rows
from nnjax.train.engine.ensemble import BATCH, Ensemble, index_tree
from nnjax.train.engine.job import Job, Members
from nnjax.train.engine.trainable import batch_rows, take_step
from nnjax.train.folds import Rows
from nnjax.train.run import metric_name
from nnjax.types import Data, Key, PyTree, Trainable

Fingerprint = dict[str, str]
MACHINE = (  # entries that describe the machine; the others describe the run
    *("device", "cores", "XLA flags", "compiled programs"),
    *("jax", "jaxlib", "optax", "nnjax"),
)


def run_fingerprint(job: Job) -> Fingerprint:
    """Return the fingerprint of a run: everything that determines its exact result."""
    ensemble, members, sample = job.ensemble, job.members, data.sample(job.data)
    run = ensemble.run(index_tree(members.hyper, 0))
    validation = (job.held_out, members.held_out_rows, job.patience, job.held_out and job.validate_every)
    return {
        "step": step_digest(ensemble, members.keys[0], members.hyper, sample),
        "batch_size": str(run.batch_size),
        "members": str(ensemble.members),
        "strategy": str(ensemble.strategy) if ensemble.members > 1 else "none",
        "batch over": str(ensemble.axis_size(BATCH)),  # the number of devices along "members" does not affect results
        "key": digest(jax.random.key_data(members.keys))[:16],
        "hyper-parameters": digest(members.hyper)[:16],
        "sampler": sampler_digest(run, members, data.n_rows(job.data)),
        "start": "drawn" if members.start is None else digest(members.start)[:16],
        "data": data.digest(job.data)[:16],
        "rows": digest(members.rows)[:16],
        "validation": digest(validation)[:16],
        "metrics": ", ".join(metric_name(metric) for metric in getattr(run, "metrics", ())),
        "evaluation": "none" if job.held_out is None else evaluation_digest(ensemble, members, sample, job.held_out),
        **machine_fingerprint(),
    }


def machine_fingerprint() -> Fingerprint:
    """Return the device and the versions, which affect the exact result of every run."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = jax.devices()[0]
    packages = {name: version(name) for name in ("jax", "jaxlib", "optax")} | {"nnjax": __version__}
    settings = program_settings(device.platform)
    return {"device": f"{device.platform} {device.device_kind}", "cores": str(cores), **settings, **packages}


def step_digest(ensemble: Ensemble, key: Key, hyper: PyTree, sample: Data) -> str:
    """Return a digest of the traced program of one step: network, loss, optimizer and their constants."""
    first = index_tree(hyper, 0)
    rows = ensemble.run(first).batch_size or data.n_rows(sample)

    def step(hyper: PyTree, key: Key, sample: Data) -> PyTree:
        run = ensemble.run(hyper)
        return take_step(run, run.init(key, sample), data.take_rows(sample, jnp.zeros(rows, jnp.int32)))

    return _program_digest(step, first, key, sample)


def evaluation_digest(ensemble: Ensemble, members: Members, sample: Data, held_out: Data) -> str:
    """Return a digest of the traced program for validation: network, loss, metrics and their constants.

    A changed metric with the same name is detected if JAX traces the change. Code outside of JAX, such as in a
    `jax.pure_callback`, is not part of the program.
    """

    def evaluate(hyper: PyTree, key: Key, rows: Rows | None, sample: Data, held_out: Data) -> PyTree:
        run = ensemble.run(hyper)
        return run.evaluate(run.init(key, sample), held_out if rows is None else select_rows(held_out, rows))

    hyper, key, rows = index_tree((members.hyper, members.keys, members.held_out_rows), 0)
    return _program_digest(evaluate, hyper, key, rows, sample, held_out)


def sampler_digest(run: Trainable, members: Members, n_examples: int) -> str:
    """Return a digest of the program that draws the rows of a step, or "none" for shuffled epochs."""
    if getattr(run, "sampler", None) is None:
        return "none"

    def rows(key: Key, step: Array, size: Array | None) -> Array:
        return batch_rows(run, key, step, n_examples if size is None else size, 1)

    size = None if members.rows is None else jnp.asarray(members.rows.sizes[0])
    return _program_digest(rows, members.keys[0], jnp.zeros((), jnp.int32), size)


def _program_digest(function: Callable[..., PyTree], *arguments: Any) -> str:
    """Return a digest of the traced program of a function, and of its constants."""
    jaxpr = jax.make_jaxpr(function)(*arguments)
    text = re.sub(r"0x[0-9a-f]+|<function .*?>", "", str(jaxpr))  # memory addresses differ between processes
    return hashlib.sha256(f"{text} {digest(list(_constants(jaxpr)))}".encode()).hexdigest()[:16]


def differences(saved: Fingerprint, current: Fingerprint) -> list[tuple[str, str, str]]:
    """Return the name, saved value and current value of each entry that differs."""
    names = [*saved, *(name for name in current if name not in saved)]
    return [
        (name, saved.get(name, "nothing"), current.get(name, "nothing"))
        for name in names
        if saved.get(name) != current.get(name)
    ]


def _constants(jaxpr: Any) -> Iterator[Any]:
    """Yield the constant arrays of a program and of its inner programs, because its text shows only their shapes."""
    yield from getattr(jaxpr, "consts", ())
    for equation in jaxpr.eqns:
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            if hasattr(value, "eqns"):
                yield from _constants(value)
