"""Estimate the memory, operations and time of a run before training, and how many members fit into memory."""

import math
import os
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nnjax import checks
from nnjax.data import Source, as_examples, n_bytes, n_rows, sample, take_rows
from nnjax.data._transfers import allow_transfers
from nnjax.debug import Cost, count_flops
from nnjax.train.engine.device_loop import CAPACITY, MemberArgs, initial_states, train_chunk
from nnjax.train.engine.distributed import refuse_forked_process
from nnjax.train.engine.ensemble import MEMBERS, STRATEGIES, Ensemble, Strategy, platform_strategy
from nnjax.train.engine.fit_state import initial_fit_state
from nnjax.train.engine.job import EPOCH_STEPS
from nnjax.train.engine.placement import copy_tree, replicate, shard_members
from nnjax.train.engine.trainable import check_trainable, take_step
from nnjax.train.run import NO_DATA
from nnjax.types import Data, PyTree, Trainable

MEMORY_SHARE = 0.9  # share of the free memory that members may use
SECONDS = 0.3  # time for measuring one strategy
MEASURED = 8  # largest number of members in a measurement, or twice the number of devices if that is larger
FEW, MANY = 16, 32  # numbers of members whose memory is compared; with fewer than 16, programs draw more rows at once


class Plan(NamedTuple):
    """The estimated memory, operations and time of a run; `str` formats them as a table."""

    params: int  # number of trained parameters of one member
    state_bytes: int  # size of one member's state: parameters, statistics and moments
    data_bytes: int
    cost: Cost  # floating-point operations of one step of one member
    epoch_steps: float
    members: int
    devices: str  # description such as "2 × cpu, members over 2"
    memory: int  # free bytes of one device
    fixed_bytes: dict[Strategy, int]  # bytes on one device that do not depend on the number of members, including data
    member_bytes: dict[Strategy, int]  # bytes for each additional member, including a copy for saving
    fit: dict[Strategy, int]  # number of members that fit into the memory of all devices
    seconds: dict[Strategy, float]  # measured seconds per step of one member; only for strategies that were measured
    strategy: Strategy  # the faster strategy; without measurements, the one with which more members fit
    group: int | None  # number of members to train at a time, see `fit`; None if all members fit

    def __str__(self) -> str:
        rows = [
            ("parameters", f"{self.params:,} each"),
            ("state", f"{_size(self.state_bytes)} each"),
            ("data", _size(self.data_bytes)),
            (
                "operations",
                f"{self.cost.total:,} floating-point per step, {self.cost.matmul:,} of them in matrix products",
            ),
            ("epoch", f"{self.epoch_steps:,.1f} steps"),
            ("devices", f"{self.devices}, {_size(self.memory)} free on each"),
        ]
        for name in self.fit:
            speed = f", {1e6 * self.seconds[name]:.1f} µs for a member's step" if name in self.seconds else ""
            rows.append((name, f"{_size(self.member_bytes[name])} each, {self.fit[name]:,} members fit{speed}"))
        groups = "all at the same time" if self.group is None else f"in groups of {self.group:,}"
        faster = f", strategy {self.strategy} (the faster one)" if len(self.seconds) > 1 else ""
        rows.append(("members", f"{self.members:,} {groups}{faster}"))
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


@allow_transfers
def plan(
    run: Trainable,
    data: Data | Source | tuple[Any, ...] | None = None,
    *,
    members: int = 1,
    mesh: Mesh | None = None,
    memory: int | None = None,
    measure: bool = True,
) -> Plan:
    """Estimate the memory, operations and time of an ensemble.

    The programs are compiled, and run briefly to compare the strategies. Memory is per device, as reported by the
    compiler. `fit` uses the recommended strategy only if you pass it, because results depend on the strategy.

    Args:
      run: the run to train.
      data: see `fit`.
      members: number of networks to train.
      mesh: see `fit`.
      memory: bytes that may be used on each device; None means nine tenths of the free memory.
      measure: True to run the programs briefly and compare the speed of the strategies.

    Returns:
      A `Plan`, which prints as a table.

    Raises:
      ValueError, TypeError: if not even one member fits into memory, or if an argument is out of range or has the wrong
        type.

    >>> run = train.Run(nn.mlp([32], 10), losses.cross_entropy, optim.adam(1e-3), batch_size=32)
    >>> p = train.plan(run, data.load("digits").train, members=64, measure=False)
    >>> p.params, p.group
    (2410, None)
    """
    refuse_forked_process("plan")
    check_trainable("plan", "run", run)
    checks.positive_int("plan", "members", members)
    checks.flag("plan", "measure", measure)
    if memory is not None:
        memory = int(checks.in_range("plan", "memory", memory, "[1, inf)"))
    devices = Ensemble(run, members, "map", mesh).axis_size(MEMBERS)  # this also checks the mesh
    examples = NO_DATA if data is None else as_examples(data)
    samples = sample(examples)
    batch = run.batch_size or n_rows(examples)
    key = jax.random.key(0)
    ts = jax.eval_shape(run.init, key, samples)
    carried = jax.eval_shape(lambda ts: initial_fit_state(ts, validated=True, stopped=jnp.zeros((), bool)), ts)
    example = jax.eval_shape(lambda d: take_rows(d, jnp.zeros(batch, jnp.int32)), samples)
    cost = count_flops(partial(take_step, run), ts, example)
    free = int(_free_bytes() * MEMORY_SHARE) if memory is None else memory

    fixed, additional, fit, seconds = {}, {}, {}, {}
    for strategy in STRATEGIES:
        few, many = (_program_bytes(Ensemble(run, m, strategy), key, samples) for m in (FEW, MANY))
        growth = max(1, (many - few) // (MANY - FEW))
        fixed[strategy], additional[strategy] = max(0, few - FEW * growth), growth + _tree_bytes(carried)
        fit[strategy] = max(0, (free - fixed[strategy]) // additional[strategy]) * devices
    if max(fit.values()) == 0:
        raise ValueError(
            f"plan: not one member fits: it needs {_size(min(fixed.values()) + min(additional.values()))}, but only "
            f"{_size(free)} are free; a smaller batch, micro_batches, nn.remat or more memory= may help"
        )
    if measure:
        count = min(members, max(MEASURED, 2 * devices))
        seconds = {s: _measure(Ensemble(run, count, s, mesh), key, samples) for s in STRATEGIES if fit[s] >= count}
    best = min(seconds, key=seconds.__getitem__) if seconds else max(fit, key=fit.__getitem__)
    return Plan(
        params=sum(leaf.size for leaf in jax.tree.leaves(ts.params)),
        state_bytes=_tree_bytes(ts),
        data_bytes=n_bytes(examples),
        cost=cost,
        epoch_steps=n_rows(examples) / batch if batch else EPOCH_STEPS,
        members=members,
        devices=_describe_devices(mesh),
        memory=free,
        fixed_bytes=fixed,
        member_bytes=additional,
        fit=fit,
        seconds=seconds,
        strategy=best,
        group=None if members <= fit[best] else fit[best],
    )


def group_that_fits(
    run: Trainable, data: Data, members: int, *, strategy: Strategy | None, mesh: Mesh | None
) -> int | None:
    """Return how many members fit into memory at a time, or None if all fit. Small ensembles are assumed to fit."""
    state = _tree_bytes(jax.eval_shape(run.init, jax.random.key(0), data))
    devices = 1 if mesh is None else mesh.shape.get(MEMBERS, 1)
    if 20 * members * state / devices + 4 * _tree_bytes(data) < _free_bytes() / 4:
        return None
    fit = plan(run, data, members=members, mesh=mesh, measure=False).fit[strategy or platform_strategy(mesh)]
    return None if members <= fit else fit


def _program_bytes(ensemble: Ensemble, key: Any, data: Data) -> int:
    """Return the bytes of device memory for a compiled chunk: arguments, results, temporaries and best networks."""
    members = ensemble.members
    keys = jax.eval_shape(lambda k: jax.random.split(k, members), key)
    fs = jax.eval_shape(lambda k, d: initial_states(ensemble, k, None, None, d, validated=True), keys, data)
    args = MemberArgs(until=jnp.zeros(members, jnp.int32))
    chunk = jax.jit(train_chunk, static_argnums=0, donate_argnums=1)
    memory: Any = chunk.lower(ensemble, fs, args, data, np.int32(0)).compile().memory_analysis()
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


def _measure(ensemble: Ensemble, key: Any, data: Data) -> float:
    """Measure how many seconds a step of one member takes."""
    members = ensemble.members
    keys = shard_members(ensemble, jax.random.split(key, members))
    shared = replicate(ensemble, data)
    fs = copy_tree(initial_states(ensemble, keys, None, None, shared, validated=False))
    done, n, elapsed = 0, 1, 0.0
    while elapsed < SECONDS / 4 and n <= CAPACITY:  # measure longer and longer chunks; use the last one
        args = MemberArgs(until=shard_members(ensemble, np.full(members, done + n, np.int32)))
        clock = time.perf_counter()
        fs, _, _ = jax.block_until_ready(train_chunk(ensemble, fs, args, shared, np.int32(n)))
        elapsed = time.perf_counter() - clock if done else 0.0
        done, last, n = done + n, n, 4 * n
    return elapsed / last / members


def _free_bytes() -> int:
    """Return the bytes of free memory on a device. CPU devices share the free memory of the system or container."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    meminfo, limit, used = (
        Path(p) for p in ("/proc/meminfo", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current")
    )
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text(encoding="utf-8").splitlines())
        limits.append(int(fields["MemAvailable"].split()[0]) * 1024)
    if limit.exists() and limit.read_text(encoding="utf-8").strip().isdigit():
        limits.append(int(limit.read_text(encoding="utf-8")) - int(used.read_text(encoding="utf-8")))
    return min(limits) // len(jax.local_devices())


def _describe_devices(mesh: Mesh | None) -> str:
    kind = jax.devices()[0].device_kind
    if mesh is None:
        return f"1 × {kind}"
    return f"{mesh.size} × {kind}, " + ", ".join(f"{name} over {size}" for name, size in mesh.shape.items())


def _tree_bytes(tree: PyTree) -> int:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def _size(n: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:.3g} {unit}" if n < 1000 else f"{n:,.0f} {unit}"
        n /= 1000
    return ""
