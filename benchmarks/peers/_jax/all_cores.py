"""Distribute the members of an ensemble over all CPU cores."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from benchmarks.harness.environment import usable_cores

SUFFIX = "on all cores"  # forms whose names end with this are distributed


def make_cores_devices(form: str) -> None:
    """Make each core a JAX device if the form needs it. Call this before JAX creates its devices."""
    if form.endswith(SUFFIX):
        jax.config.update("jax_num_cpu_devices", usable_cores())


def shard_members(
    form: str, function: Callable[..., Any], has_members: tuple[bool, ...], *args: Any
) -> tuple[Any, tuple[Any, ...]]:
    """Return a function and its arguments, sharded over the largest number of devices that divides the members evenly.

    Args:
      form: name of the form. If it does not end with `SUFFIX`, the function and its arguments are returned unchanged.
      function: `(*args) -> outputs`, where the first axis of all outputs indexes the members.
      has_members: for each argument, True if its first axis indexes the members; other arguments are replicated.
      args: the arguments.

    Raises:
      ValueError: if there is only one device, or if the members cannot be split evenly over any number of devices.
    """
    if not form.endswith(SUFFIX):
        return function, args
    devices = jax.devices()
    if len(devices) == 1:
        raise ValueError("there is only one device to distribute members over")
    members = len(jax.tree.leaves(args[has_members.index(True)])[0])
    shards = max(n for n in range(1, len(devices) + 1) if members % n == 0)
    if shards == 1:
        raise ValueError(f"members={members} cannot be split evenly over 2 to {len(devices)} devices")
    mesh = Mesh(np.array(devices[:shards]), ("members",), axis_types=(AxisType.Auto,))
    specs = tuple(PartitionSpec("members") if split else PartitionSpec() for split in has_members)
    sharded_args = jax.device_put(args, tuple(NamedSharding(mesh, spec) for spec in specs))
    out = PartitionSpec("members")
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False), sharded_args
