"""What a run is: everything that its bits follow from, as short texts that can be compared."""

import hashlib
import os
import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp

from nnjax.data.source import Source
from nnjax.storage.checkpoint import digest
from nnjax.train.folds import Rows
from nnjax.train.program import BATCH, Program
from nnjax.train.run import length, metric_name, take
from nnjax.types import Data, Key, PyTree

Identity = dict[str, str]
MACHINE = ("device", "cores", "jax", "jaxlib", "optax", "nnjax")  # the rest is the run's own


def identity(
    program: Program,
    keys: Key,
    hyper: PyTree,
    data: Data | Source,
    sample: Data,
    rows: Rows | None,
    validation: PyTree = None,
) -> Identity:
    """Everything that the bits of a run follow from.

    Args:
      program: of the run.
      keys: (members,).
      hyper: (members, ...).
      data: all examples.
      sample: some examples, of which shapes and dtypes are read.
      rows: (members, ...).
      validation: whatever decides when a member is stopped and which network is its best.
    """
    run = program.run(jax.tree.map(lambda a: a[0], hyper))
    return {
        "step": step_digest(program, keys[0], hyper, sample),
        "batch_size": str(run.batch_size),
        "members": str(program.members),
        "strategy": program.strategy if program.members is not None else "none",
        "batch over": str(1 if program.mesh is None else program.mesh.shape.get(BATCH, 1)),  # members do not exchange
        "key": digest(jax.random.key_data(keys))[:16],
        "hyper-parameters": digest(hyper)[:16],
        "data": (data.digest if isinstance(data, Source) else digest(data))[:16],
        "rows": digest(rows)[:16],
        "validation": digest(validation)[:16],
        "metrics": ", ".join(metric_name(metric) for metric in run.metrics),
        **machine(),
    }


def machine() -> Identity:
    """What the bits of any run depend on besides the run."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = jax.devices()[0]
    packages = {name: version(name) for name in ("jax", "jaxlib", "optax", "nnjax")}
    return {"device": f"{device.platform} {device.device_kind}", "cores": str(cores), **packages}


def step_digest(program: Program, key: Key, hyper: PyTree, sample: Data) -> str:
    """The program of one step as JAX traces it: network, loss, optimizer and their constants, whatever their names."""
    first = jax.tree.map(lambda a: a[0], hyper)
    rows = program.run(first).batch_size or length(sample)

    def step(hyper: PyTree, key: Key, sample: Data) -> PyTree:
        run = program.run(hyper)
        return run.step(run.init(key, sample), take(sample, jnp.zeros(rows, jnp.int32)))

    jaxpr = jax.make_jaxpr(step)(first, key, sample)
    text = re.sub(r"0x[0-9a-f]+|<function .*?>", "", str(jaxpr))  # addresses differ from process to process
    return hashlib.sha256(f"{text} {digest(list(_constants(jaxpr)))}".encode()).hexdigest()[:16]


def _constants(jaxpr: Any) -> Iterator[Any]:
    """The arrays written into a program and into those inside it; its text shows only their shapes."""
    yield from getattr(jaxpr, "consts", ())
    for equation in jaxpr.eqns:
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            if hasattr(value, "eqns"):
                yield from _constants(value)


def differences(saved: Identity, now: Identity) -> list[tuple[str, str, str]]:
    """What differs: its name, as it was saved, as it is now."""
    names = [*saved, *(name for name in now if name not in saved)]
    return [
        (name, saved.get(name, "nothing"), now.get(name, "nothing"))
        for name in names
        if saved.get(name) != now.get(name)
    ]


def table(rows: list[tuple[str, str, str]]) -> str:
    """The differences as text, a line each."""
    cells: list[tuple[Any, ...]] = [("", "saved", "now"), *rows]
    left, middle = (max(len(cell[i]) for cell in cells) for i in range(2))
    return "\n".join(f"  {a:<{left}}  {b:<{middle}}  {c}".rstrip() for a, b, c in cells)
