"""Place arrays: replicated on all devices, sharded by member, or on the host."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import NamedSharding, PartitionSpec

from nnjax.train.engine.ensemble import BATCH, MEMBERS, Ensemble
from nnjax.types import PyTree


def replicate(ensemble: Ensemble, tree: PyTree) -> PyTree:
    """Copy arrays that all members share to every device of the ensemble."""
    if ensemble.mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    return _place(tree, NamedSharding(ensemble.mesh, PartitionSpec()))


def shard_members(ensemble: Ensemble, tree: PyTree) -> PyTree:
    """Put arrays (members, ...) on the ensemble's devices. Padding members are copies of the first one."""
    padding = ensemble.padded - ensemble.members
    if padding:
        tree = jax.tree.map(lambda a: jnp.concatenate([a, jnp.repeat(a[:1], padding, axis=0)]), tree)
    if ensemble.mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    axis = PartitionSpec(MEMBERS) if MEMBERS in ensemble.mesh.axis_names else PartitionSpec()
    return _place(tree, NamedSharding(ensemble.mesh, axis))


def shard_batch(ensemble: Ensemble, batch: PyTree) -> PyTree:
    """Spread a batch over the mesh's batch axis, inside a program. XLA inserts the sums over devices."""
    if ensemble.mesh is None or BATCH not in ensemble.mesh.axis_names:
        return batch
    sharding = NamedSharding(ensemble.mesh, PartitionSpec(BATCH))
    return jax.tree.map(lambda a: lax.with_sharding_constraint(a, sharding), batch)


def snapshot(ensemble: Ensemble, tree: PyTree) -> PyTree:
    """Copy a tree on the device, without padding members.

    The copy stays valid when the next chunk reuses the memory of the original, and every process can read all of it.
    """
    distributed = ensemble.mesh is not None and jax.process_count() > 1
    sharding = NamedSharding(ensemble.mesh, PartitionSpec()) if distributed and ensemble.mesh is not None else None
    copied = _copy(tree, ensemble.members, sharding)
    # Two programs that communicate between processes must not run at the same time, because their order could differ
    return jax.block_until_ready(copied) if distributed else copied


@jax.jit  # compiles one program for the tree, instead of one for each shape
def copy_tree(tree: PyTree) -> PyTree:
    """Copy a tree on the device. An array that occurs several times in the tree becomes several arrays."""
    return jax.tree.map(jnp.copy, tree)


def to_host(ensemble: Ensemble, tree: PyTree) -> PyTree:
    """Return arrays (members, ...) on the host, without padding members."""
    if ensemble.mesh is not None and jax.process_count() > 1:
        tree = snapshot(ensemble, tree)
    return jax.tree.map(lambda a: np.asarray(a)[: ensemble.members], tree)


def _place(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Place arrays such that each process has only its shard. Every process must pass the full arrays."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def place(a: Any) -> Array:
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(place(jax.random.key_data(a)), impl=jax.random.key_impl(a))
        host = np.asarray(a)
        return jax.make_array_from_callback(host.shape, sharding, lambda shard: host[shard])

    return jax.tree.map(place, tree)


@partial(jax.jit, static_argnames=("members", "sharding"))
def _copy(tree: PyTree, members: int, sharding: NamedSharding | None) -> PyTree:
    copied = jax.tree.map(lambda a: jnp.copy(a[:members]), tree)
    return copied if sharding is None else lax.with_sharding_constraint(copied, sharding)
