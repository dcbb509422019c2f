"""One program for a run, or for many: the members of an ensemble, of a sweep, of folds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nnjax import checks
from nnjax.train.run import Run
from nnjax.types import PyTree

Strategy = Literal["map", "vmap"]
STRATEGIES = ("map", "vmap")
MEMBERS, BATCH = "members", "batch"  # the axes of a mesh
T = TypeVar("T")


@dataclass(frozen=True)
class Program:
    """What is compiled, all but its arguments.

    Args:
      make: the run, or `make(hyper-parameters) -> Run`.
      members: how many runs; None for one run, without an axis of members.
      strategy: "map", one member after another with the bits of the lone run, or "vmap", all in step.
      mesh: devices over which members or batches are spread; None for one device.

    Raises:
      ValueError, TypeError: for an unknown strategy, members < 1, or a mesh with other axes.
    """

    make: Run | Callable[[PyTree], Run]
    members: int | None = None
    strategy: Strategy = "map"
    mesh: Mesh | None = None

    def __post_init__(self) -> None:
        checks.one_of("fit", "strategy", self.strategy, STRATEGIES)
        if self.members is not None:
            checks.positive_int("fit", "members", self.members)
        if self.mesh is None:
            return
        if not isinstance(self.mesh, Mesh):
            raise TypeError(f"fit: mesh must be a jax.sharding.Mesh such as jax.make_mesh(…), got {self.mesh!r}")
        if not set(self.mesh.axis_names) <= {MEMBERS, BATCH}:
            raise ValueError(
                f"fit: the mesh's axes must be among '{MEMBERS}' and '{BATCH}', got {self.mesh.axis_names}"
            )
        if MEMBERS in self.mesh.axis_names and self.members is None:
            raise ValueError(f"fit: a mesh with an axis '{MEMBERS}' needs members=…")
        auto = (AxisType.Auto,) * len(self.mesh.axis_names)  # jax.make_mesh makes Explicit axes unless it is told
        object.__setattr__(self, "mesh", Mesh(self.mesh.devices, self.mesh.axis_names, axis_types=auto))

    def run(self, hyper: PyTree) -> Run:
        """The run of one member."""
        if isinstance(self.make, Run):
            return self.make
        with checks.located("in make_run, whose numbers are traced: it may compute with them, but not branch on them"):
            run: Any = self.make(hyper)
        if not isinstance(run, Run):
            raise TypeError(f"sweep: make_run must return a train.Run, got {run!r}")
        return run

    @property
    def padded(self) -> int:
        """Members, with those that only fill up the devices."""
        devices = self.mesh.shape.get(MEMBERS, 1) if self.mesh is not None else 1
        return -(-(self.members or 1) // devices) * devices


def each_member(program: Program, f: Callable[[Any, Any], T], each: PyTree, shared: PyTree) -> T:
    """`f(each[i], shared)` for every member i; `f(each, shared)` for a lone run.

    Members need nothing of each other: over a mesh every device runs its own, at its own pace.
    """
    if program.members is None:
        return f(each, shared)

    def local(each: PyTree, shared: PyTree) -> T:
        if program.strategy == "vmap":
            return jax.vmap(f, in_axes=(0, None))(each, shared)
        return lax.map(lambda one: f(one, shared), each)

    if program.mesh is None or MEMBERS not in program.mesh.axis_names:
        return local(each, shared)
    members, whole = PartitionSpec(MEMBERS), PartitionSpec()
    return jax.shard_map(
        local,
        mesh=program.mesh,
        in_specs=(members, whole),
        out_specs=members,
        axis_names={MEMBERS},
        check_vma=False,
    )(each, shared)


def over_batch(program: Program, batch: PyTree) -> PyTree:
    """The batch spread over the mesh's axis for it. The partitioner makes means and gradients of all of it."""
    if program.mesh is None or BATCH not in program.mesh.axis_names:
        return batch
    sharding = NamedSharding(program.mesh, PartitionSpec(BATCH))
    return jax.tree.map(lambda a: lax.with_sharding_constraint(a, sharding), batch)


def put(program: Program, tree: PyTree) -> PyTree:
    """Arrays that all members share, whole on each of the program's devices."""
    if program.mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    return _place(tree, NamedSharding(program.mesh, PartitionSpec()))


def put_each(program: Program, tree: PyTree) -> PyTree:
    """Arrays (members, ...) on the program's devices, filled up with copies of the first; (1, ...) for a lone run."""
    if program.members is None:
        return put(program, jax.tree.map(lambda a: a[0], tree))
    extra = program.padded - program.members
    if extra:
        tree = jax.tree.map(lambda a: jnp.concatenate([a, jnp.repeat(a[:1], extra, axis=0)]), tree)
    if program.mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    axis = PartitionSpec(MEMBERS) if MEMBERS in program.mesh.axis_names else PartitionSpec()
    return _place(tree, NamedSharding(program.mesh, axis))


def snapshot(program: Program, tree: PyTree) -> PyTree:
    """A copy on the device, (members, ...) without those that fill up, or as it is for a lone run.

    It survives when a chunk gives the memory of the original away, and each process can read all of it.
    """
    several = program.mesh is not None and jax.process_count() > 1
    whole = NamedSharding(program.mesh, PartitionSpec()) if several and program.mesh is not None else None
    copied = _copy(tree, program.members, whole)
    # Between processes two programs must not exchange at the same time, in an order that each chooses by itself
    return jax.block_until_ready(copied) if several else copied


def restore(program: Program, tree: PyTree) -> PyTree:
    """What `snapshot` gave, on the program's devices again."""
    return put_each(program, jax.tree.map(lambda a: a[None], tree) if program.members is None else tree)


def fetch(program: Program, tree: PyTree) -> PyTree:
    """Arrays on the host, (members, ...), with one member for a lone run."""
    if program.mesh is not None and jax.process_count() > 1:
        tree = snapshot(program, tree)
    if program.members is None:
        return jax.tree.map(lambda a: np.asarray(a)[None], tree)
    return jax.tree.map(lambda a: np.asarray(a)[: program.members], tree)


def _place(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """The arrays, which every process has whole, where each process holds its part."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def one(a: Any) -> Array:
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(a)), impl=jax.random.key_impl(a))
        host = np.asarray(a)
        return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])

    return jax.tree.map(one, tree)


@partial(jax.jit, static_argnames=("members", "sharding"))
def _copy(tree: PyTree, members: int | None, sharding: NamedSharding | None) -> PyTree:
    copied = jax.tree.map(lambda a: jnp.copy(a if members is None else a[:members]), tree)
    return copied if sharding is None else lax.with_sharding_constraint(copied, sharding)
