"""Members of an ensemble on all cores: each core has its share of them."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from benchmarks.harness.fingerprint import cores

ALL = "on all cores"  # how the forms end that are spread


def use_cores(form: str) -> None:
    """Makes every core a device of its own for a form that wants it. To be called before JAX has any device."""
    if form.endswith(ALL):
        jax.config.update("jax_num_cpu_devices", cores())


def spread(form: str, function: Callable[..., Any], split: tuple[bool, ...], *args: Any) -> tuple[Any, tuple[Any, ...]]:
    """The function and its arguments, over as many devices as the members can be shared out to evenly.

    Args:
      form: one that ends with `ALL`; another is left as it is.
      function: `(*args) -> outputs`; outputs have the members in front.
      split: which of the arguments have the members in front; the others are copied to every device.
      args: the arguments.

    Raises:
      ValueError: where there is only one device, or one member.
    """
    if not form.endswith(ALL):
        return function, args
    members = len(jax.tree.leaves(args[split.index(True)])[0])
    shares = max(n for n in range(1, len(jax.devices()) + 1) if members % n == 0)
    if shares == 1:
        raise ValueError(f"{members} members cannot be shared out to {len(jax.devices())} devices")
    mesh = Mesh(np.array(jax.devices()[:shares]), ("members",), axis_types=(AxisType.Auto,))
    specs = tuple(PartitionSpec("members") if each else PartitionSpec() for each in split)
    placed = jax.device_put(args, tuple(NamedSharding(mesh, spec) for spec in specs))
    out = PartitionSpec("members")
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False), placed
