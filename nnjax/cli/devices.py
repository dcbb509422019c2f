"""Set up the devices of a command: CPU cores as JAX devices, a mesh over all devices, and several processes."""

import os
import sys
from importlib.metadata import version
from pathlib import Path

import jax
from jax.sharding import AxisType, Mesh
from rich.markup import escape

from nnjax._reproducible import has_started, reproducible
from nnjax._version import __version__
from nnjax.cli.console import say
from nnjax.train.engine import distributed


def start_devices(networks: int | None, group: int | None) -> Mesh | None:
    """Spread the networks over the cores or devices, and print the hardware and the versions.

    Call it before JAX starts.

    Args:
      networks: number of networks to train; None means a single network.
      group: number of networks in memory at the same time; None means all.

    Returns:
      The mesh for `train.fit`; see `make_mesh`.
    """
    keep_programs()
    use_cores(parallel_networks(networks, group) or 1)
    mesh = make_mesh(parallel_networks(networks, group))
    device, known = jax.devices()[0], versions()
    say(
        f"[bold]nnjax[/] {known['nnjax']} on {1 if mesh is None else mesh.size} × {device.device_kind} "
        f"({device.platform}), jax {known['jax']}, optax {known['optax']}, Python {sys.version.split()[0]}"
    )
    return mesh


def keep_programs() -> None:
    """Cache compiled programs and make GPUs deterministic with `nnjax.reproducible`, unless JAX has started."""
    if has_started():
        return
    try:
        reproducible()
    except OSError as error:
        say(f"[yellow]compiled programs are not cached:[/] {escape(str(error))}")


def parallel_networks(networks: int | None, group: int | None) -> int | None:
    """Return the number of networks that are trained at the same time, or None for a single network."""
    return networks if networks is None or group is None else min(networks, group)


def use_cores(networks: int) -> None:
    """Make each CPU core a JAX device, at most one per network. Call it before JAX starts.

    If the user has set $JAX_NUM_CPU_DEVICES or $XLA_FLAGS, they determine the number of devices.
    """
    user_choice = jax.config.values["jax_num_cpu_devices"] != -1
    if user_choice or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if min(cores, networks) > 1:
        try:
            jax.config.update("jax_num_cpu_devices", min(cores, networks))
        except RuntimeError:  # JAX has already started, for example in a program that calls the command
            return


def make_mesh(networks: int | None) -> Mesh | None:
    """Return the mesh of the devices that train the networks, or None for a single device.

    A single process uses at most one device per network. With several processes, an ensemble uses all their devices; a
    single network uses one device of each process and splits its batches.
    """
    if networks is None and jax.process_count() > 1:
        firsts = [next(d for d in jax.devices() if d.process_index == i) for i in range(jax.process_count())]
        return jax.make_mesh((len(firsts),), ("batch",), axis_types=(AxisType.Auto,), devices=firsts)
    devices = jax.devices() if jax.process_count() > 1 else jax.devices()[: networks or 1]
    if len(devices) == 1:
        return None
    return jax.make_mesh((len(devices),), ("members",), axis_types=(AxisType.Auto,), devices=devices)


def join_processes(
    coordinator: str | None, processes: int | None, process_id: int | None, *, cluster: bool, folder: Path | None
) -> None:
    """Join the other processes if the options ask for it. Call it before JAX starts.

    Raises:
      ValueError: if only some of the three options are passed, without `cluster`, or if --out, the folder that all
        processes share, is missing.
    """
    options = {"--coordinator": coordinator, "--processes": processes, "--process-id": process_id}
    missing = [name for name, value in options.items() if value is None]
    if len(missing) == len(options) and not cluster:
        return
    if folder is None:
        raise ValueError("several processes need --out, a folder that all of them can access")
    if missing and not cluster:
        raise ValueError(f"several processes need {', '.join(options)}, or --cluster; missing: {', '.join(missing)}")
    distributed.join_processes(coordinator, processes, process_id)


def versions() -> dict[str, str]:
    """Return the versions of the packages that affect the numerical results."""
    return {"nnjax": __version__} | {package: version(package) for package in ("jax", "jaxlib", "optax")}
