"""What a run will take, before it runs: numbers, bytes, operations, and how many members fit into memory."""

import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nnjax import checks
from nnjax.data import examples as as_examples
from nnjax.data.source import Source
from nnjax.debug import Cost, count_flops
from nnjax.train.engine.device_loop import CAPACITY, Member, begin, chunk
from nnjax.train.engine.ensemble import MEMBERS, Program, Strategy, put, put_each
from nnjax.train.engine.fit_state import start
from nnjax.train.run import Run, length, take
from nnjax.types import Data, PyTree

SHARE = 0.9  # of the free memory that members may take
SECONDS = 0.3  # for measuring one strategy
TRIED = 8  # members to measure with, or twice the devices
FEW, MANY = 16, 32  # members whose programs' bytes are compared; fewer draw more rows at once


class Plan(NamedTuple):
    """What a run will take; `str` is the table."""

    params: int  # trained numbers of one member
    state_bytes: int  # of one member's state: parameters, statistics, moments
    data_bytes: int
    cost: Cost  # operations of one step of one member
    epoch_steps: float
    members: int
    devices: str  # "2 × cpu, members over 2"
    memory: int  # free bytes of one device
    fixed_bytes: dict[Strategy, int]  # by strategy: on one device whatever the members, data included
    member_bytes: dict[Strategy, int]  # by strategy: for each member more on its device, a copy to save included
    fit: dict[Strategy, int]  # by strategy: members that fit into memory
    seconds: dict[Strategy, float]  # by strategy: of one member's step, measured; empty where nothing was measured
    strategy: Strategy  # the faster one
    group: int | None  # what `fit` needs as `group` for the members to fit; None where all do

    def __str__(self) -> str:
        rows = [
            ("parameters", f"{self.params:,} each"),
            ("state", f"{_size(self.state_bytes)} each"),
            ("data", _size(self.data_bytes)),
            (
                "operations",
                f"{self.cost.total:,} floating-point in a step, {self.cost.matmul:,} of them in products",
            ),
            ("epoch", f"{self.epoch_steps:,.1f} steps"),
            ("devices", f"{self.devices}, {_size(self.memory)} free on each"),
        ]
        for name in self.fit:
            speed = f", {1e6 * self.seconds[name]:.1f} µs for a member's step" if self.seconds else ""
            rows.append((name, f"{_size(self.member_bytes[name])} each, {self.fit[name]:,} members fit{speed}"))
        groups = "all at the same time" if self.group is None else f"in groups of {self.group:,}"
        faster = f", strategy {self.strategy} (the faster one)" if self.seconds else ""
        rows.append(("members", f"{self.members:,} {groups}{faster}"))
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def plan(
    run: Run,
    data: Data | Source | tuple[Any, ...],
    *,
    members: int = 1,
    mesh: Mesh | None = None,
    memory: int | None = None,
    measure: bool = True,
) -> Plan:
    """What an ensemble will take. Its programs are compiled and, to compare the strategies, run for a moment.

    The bytes are those that the compiler reports for its programs, on one device. A measurement recommends a strategy;
    `fit` is told it, for bits depend on it.

    Args:
      run: the run.
      data: as for `fit`.
      members: how many are wanted.
      mesh: as for `fit`.
      memory: bytes that may be used on each device; None for nine tenths of what is free.
      measure: whether to run the programs for a moment.

    Raises:
      ValueError: where not even one member fits, with the bytes; for members < 1.

    >>> run = train.Run(nn.mlp([32], 10), losses.cross_entropy, optim.adam(1e-3), 32)
    >>> p = train.plan(run, data.load("digits").train, members=64, measure=False)
    >>> p.params, p.group
    (2410, None)
    """
    checks.positive_int("plan", "members", members)
    Program(run, members, "map", mesh)  # which looks at the mesh
    examples = as_examples(data)
    sample = take(examples, np.zeros(1, np.int32)) if isinstance(examples, Data) else examples.gather(np.zeros(1, int))
    n = examples.n if isinstance(examples, Source) else length(examples)
    batch = run.batch_size or n
    key = jax.random.key(0)
    ts = jax.eval_shape(run.init, key, sample)
    carried = jax.eval_shape(lambda ts: start(ts, validated=True, stopped=jnp.zeros((), bool)), ts)
    cost = count_flops(run.step, ts, jax.eval_shape(lambda d: take(d, jnp.zeros(batch, jnp.int32)), sample))
    held = sample if isinstance(examples, Source) else examples
    free = int(_free() * SHARE) if memory is None else memory
    devices = 1 if mesh is None else mesh.shape.get(MEMBERS, 1)

    strategies: tuple[Strategy, ...] = ("map", "vmap")
    fixed, each, fit, seconds = {}, {}, {}, {}
    for strategy in strategies:
        base = Program(run, 1, strategy, None)
        few, many = (_bytes(replace(base, members=m), key, held) for m in (FEW, MANY))
        grows = max(1, (many - few) // (MANY - FEW))
        fixed[strategy], each[strategy] = max(0, few - FEW * grows), grows + _nbytes(carried)
        fit[strategy] = max(0, (free - fixed[strategy]) // each[strategy]) * devices
    if max(fit.values()) == 0:
        raise ValueError(
            f"plan: not one member fits: {_size(min(fixed.values()) + min(each.values()))} are needed, "
            f"{_size(free)} are free; a smaller batch, micro_batches or nn.remat may help"
        )
    if measure:
        tried = min(members, max(TRIED, 2 * devices))
        seconds = {s: _measure(Program(run, tried, s, mesh), key, held) for s in strategies if fit[s] >= tried}
    best = min(seconds, key=seconds.__getitem__) if seconds else max(fit, key=fit.__getitem__)
    return Plan(
        params=sum(leaf.size for leaf in jax.tree.leaves(ts.params)),
        state_bytes=_nbytes(ts),
        data_bytes=examples.n * examples.bytes_per_row if isinstance(examples, Source) else _nbytes(examples),
        cost=cost,
        epoch_steps=n / batch,
        members=members,
        devices=_devices(mesh),
        memory=free,
        fixed_bytes=fixed,
        member_bytes=each,
        fit=fit,
        seconds=seconds,
        strategy=best,
        group=None if members <= fit[best] else fit[best],
    )


def group_that_fits(run: Run, data: Data, members: int, strategy: Strategy, mesh: Mesh | None) -> int | None:
    """Members that fit into memory at a time; None where all do, which for few and small ones is seen at once."""
    state = _nbytes(jax.eval_shape(run.init, jax.random.key(0), data))
    devices = 1 if mesh is None else mesh.shape.get(MEMBERS, 1)
    if 20 * members * state / devices + 4 * _nbytes(data) < _free() / 4:
        return None
    fit = plan(run, data, members=members, mesh=mesh, measure=False).fit[strategy]
    return None if members <= fit else fit


def _bytes(program: Program, key: Any, data: Data) -> int:
    """What the compiled chunk needs on a device, best networks included: arguments, results, what is in between."""
    members = program.members or 1
    keys = jax.eval_shape(lambda k: jax.random.split(k, members), key)
    fs = jax.eval_shape(lambda k, d: begin(program, k, None, d, validated=True), keys, data)
    until, n = jnp.zeros(members, jnp.int32), np.int32(0)
    found: Any = chunk.lower(program, fs, Member(until=until), data, n).compile().memory_analysis()
    return int(
        found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes - found.alias_size_in_bytes
    )


def _measure(program: Program, key: Any, data: Data) -> float:
    """Seconds of one member's step."""
    members = program.members or 1
    keys = put_each(program, jax.random.split(key, members))
    shared = put(program, data)
    fs = jax.tree.map(jnp.copy, begin(program, keys, None, shared, validated=False))
    done, n, elapsed = 0, 1, 0.0
    while elapsed < SECONDS / 4 and n <= CAPACITY:  # longer and longer, the last one counts; the first compiles
        until = put_each(program, np.full(members, done + n, np.int32))
        clock = time.perf_counter()
        fs, _, _ = jax.block_until_ready(chunk(program, fs, Member(until=until), shared, np.int32(n)))
        elapsed = time.perf_counter() - clock if done else 0.0
        done, last, n = done + n, n, 4 * n
    return elapsed / last / members


def _free() -> int:
    """Free bytes of a device; on a CPU what the system or its container has available."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    meminfo, limit, used = (
        Path(p) for p in ("/proc/meminfo", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current")
    )
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        limits.append(int(fields["MemAvailable"].split()[0]) * 1024)
    if limit.exists() and limit.read_text().strip().isdigit():
        limits.append(int(limit.read_text()) - int(used.read_text()))
    return min(limits) // len(jax.local_devices())


def _devices(mesh: Mesh | None) -> str:
    kind = jax.devices()[0].device_kind
    if mesh is None:
        return f"1 × {kind}"
    return f"{mesh.size} × {kind}, " + ", ".join(f"{name} over {size}" for name, size in mesh.shape.items())


def _nbytes(tree: PyTree) -> int:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def _size(n: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:.3g} {unit}" if n < 1000 else f"{n:,.0f} {unit}"
        n /= 1000
    return ""
