"""What the commands share: what is printed, the devices, and what they take of a result."""

import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import typer
from jax.sharding import AxisType, Mesh
from rich.console import Console
from rich.markup import escape

from nnjax.cli import run_folder
from nnjax.cli.config import Config
from nnjax.train import identity, processes
from nnjax.train.job import Result
from nnjax.types import PyTree

app = typer.Typer(
    help="Train neural networks as pure functions of a key and the data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console(stderr=False, highlight=False)


def say(text: str) -> None:
    """A line with markup, as long as it is: broken lines are hard to copy. Of several processes the first speaks."""
    if jax.process_index() == 0:
        console.print(text, soft_wrap=True)


def complain(text: str, before: str = "") -> None:
    """A message on the error stream; only what stands before it is markup."""
    Console(stderr=True, highlight=False).print(before + escape(text), soft_wrap=True)


def show_warning(message: Warning | str, *_: Any) -> None:
    """A warning as a line."""
    complain(str(message), "[bold yellow]warning[/] ")


@contextmanager
def warnings_of(path: Path | None) -> Iterator[None]:
    """While it lasts, what is warned of in terms of Python is said in those of the command.

    Args:
      path: folder of the run; None for a sweep, which has no replay.
    """
    finds = "" if path is None else f"nnjax replay {quoted(path)} finds where; "
    words = {"train.replay(…) finds where; ": finds, "optax.clip_by_global_norm": "--clip 1"}
    show = warnings.showwarning

    def translated(message: Warning | str, *rest: Any) -> None:
        text = str(message)
        for python, own in words.items():
            text = text.replace(python, own)
        show(text, *rest)

    warnings.showwarning = translated  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.showwarning = show


def versions() -> dict[str, str]:
    """Those of the packages that numbers depend on."""
    return {package: version(package) for package in ("nnjax", "jax", "jaxlib", "optax")}


def given(ctx: typer.Context) -> set[str]:
    """The names of the settings that were written on the command line."""
    written = {name for name in ctx.params if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"}
    return {"data" if name == "name" else name for name in written}


def check_same(path: Path, saved: dict[str, Any], now: dict[str, Any], names: Iterable[str]) -> None:
    """Settings written beside --resume are those of the run.

    Raises:
      ValueError: with a table of what differs.
    """
    rows = [
        ("DATA" if k == "data" else f"--{k.replace('_', '-')}", str(saved[k]), str(now[k]))
        for k in names
        if saved[k] != now[k]
    ]
    if rows:
        raise ValueError(
            f"--resume goes on with the settings of {path}, but others are given:\n{identity.table(rows)}\n"
            "leave them out, or begin a new run with --out"
        )


@contextmanager
def explained(name: str, path: Path) -> Iterator[None]:
    """While it lasts, errors, warnings and Ctrl-C speak of the command and say how it goes on.

    Args:
      name: of the command, train or sweep.
      path: folder of the run or the sweep.
    """
    go_on = f"go on with: nnjax {name} --resume {quoted(path)}"
    try:
        with warnings_of(path if name == "train" else None):
            yield
    except ValueError as error:
        raise _in_options(error) from None
    except BlockingIOError:  # another process has the folder
        raise
    except OSError as error:
        error.add_note(go_on)
        raise
    except KeyboardInterrupt:
        complain(f"stopped; {go_on}")
        raise typer.Exit(130) from None


def _in_options(error: ValueError) -> ValueError:
    """The same error where it speaks of resuming, with options in place of `fit`'s arguments."""
    text, _, last = str(error).rpartition("\n")
    if last == "choose another out=":
        return ValueError(f"{text}\nbegin a new run with --out")
    if last.startswith("resume='anyway'"):
        return ValueError(
            f"{text}\n--anyway goes on all the same; what comes of it can then not be repeated to the bit"
        )
    return error


def join(coordinator: str | None, count: int | None, index: int | None, cluster: bool, *, folder: Path | None) -> None:
    """Make this process one of several, where that is asked for; must come before JAX starts.

    Raises:
      ValueError: for a part of what is needed.
    """
    if coordinator is None and count is None and index is None and not cluster:
        return
    if folder is None:
        raise ValueError("several processes write to one folder, which all of them see: name it with --out")
    told = {"--coordinator": coordinator, "--processes": count, "--process-id": index}
    missing = [name for name, value in told.items() if value is None]
    if missing and not cluster:
        raise ValueError(f"several processes need {', '.join(told)}; missing: {', '.join(missing)}, or --cluster")
    processes.start(coordinator, count, index)


def use_cores(networks: int) -> None:
    """Let JAX see as many devices as there are cores to spread networks over; must come before it starts.

    What the user has chosen by $JAX_NUM_CPU_DEVICES or $XLA_FLAGS stays.
    """
    chosen = jax.config.values["jax_num_cpu_devices"] != -1
    if chosen or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if min(cores, networks) > 1:
        try:
            jax.config.update("jax_num_cpu_devices", min(cores, networks))
        except RuntimeError:  # JAX runs already, in a process that is not the command's own
            return


def mesh_for(networks: int | None) -> Mesh | None:
    """All devices with networks to spread over them, those of all processes; None for one.

    A lone run takes one device, or of several processes one each, between which it divides its batches.
    """
    if networks is None and jax.process_count() > 1:
        firsts = [next(d for d in jax.devices() if d.process_index == i) for i in range(jax.process_count())]
        return jax.make_mesh((len(firsts),), ("batch",), axis_types=(AxisType.Auto,), devices=firsts)
    devices = jax.devices() if jax.process_count() > 1 else jax.devices()[: networks or 1]
    if len(devices) == 1:
        return None
    return jax.make_mesh((len(devices),), ("members",), axis_types=(AxisType.Auto,), devices=devices)


def together(config: Config, networks: int | None) -> int | None:
    """How many networks are trained at the same time."""
    return networks if networks is None or config.group is None else min(networks, config.group)


def introduce(mesh: Mesh | None) -> None:
    """The first line: on what, with what."""
    device, known = jax.devices()[0], versions()
    say(
        f"[bold]nnjax[/] {known['nnjax']} on {1 if mesh is None else mesh.size} × {device.device_kind} "
        f"({device.platform}), jax {known['jax']}, optax {known['optax']}, Python {sys.version.split()[0]}"
    )


def line_per_tenth(epochs: float) -> Callable[[Any, dict[str, Any]], None]:
    """Where there is no terminal to draw a bar on: a line for every tenth of the run, for several runs their means."""
    shown = [0]

    def callback(ts: Any, record: dict[str, Any]) -> None:
        tenth = int(10 * record["epoch"] / epochs) if epochs else 0
        if sys.stderr.isatty() or tenth == shown[0] or jax.process_index() > 0:
            return
        shown[0] = tenth  # a smaller one begins the next group
        scores = "".join(
            f"  {name.replace('_', ' ')} {mean(record[name]):.4f}"
            for name in ("validation_accuracy", "validation_r2")
            if name in record
        )
        epoch = min(round(record["epoch"], 1), epochs)
        if tenth:
            print(f"epoch {epoch:g}/{epochs:g}  loss {mean(record['loss']):.4f}{scores}", file=sys.stderr)

    return callback


def mean(values: Any) -> float:
    """Of those numbers that are finite; NaN where none is."""
    finite = np.asarray(values, float)[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def in_units(record: dict[str, Any], factor: float) -> dict[str, Any]:
    """A regression's root mean squared errors in the units of the target, which `factor` is the deviation of."""
    return {k: v * factor if k.removesuffix("_sd").endswith("rmse") else v for k, v in record.items()}


def kept_network(result: Result, config: Config) -> tuple[PyTree, PyTree]:
    """Parameters and state on the host: the last, or with patience those at the lowest validation loss."""
    source = result.best if config.patience is not None and result.best is not None else result.ts
    return jax.tree.map(np.asarray, (source.params, source.state))


def lost(result: Result, config: Config) -> np.ndarray:
    """Of which networks nothing is left, () or (members,): they diverged, with patience before the first validation."""
    diverged = np.asarray(result.diverged) >= 0
    if config.patience is None or result.best is None:
        return np.asarray(diverged)
    return np.asarray(diverged & ~np.isfinite(np.asarray(result.best.score)))


def command(name: str, config: Config, defaults: Config) -> str:
    """A command line with these settings."""
    said = {k: v for k, v in asdict(config).items() if v != getattr(defaults, k) and k != "data"}
    words = [f"--{k.replace('_', '-')}" + ("" if v is True else f" {quoted(v)}") for k, v in said.items()]
    return " ".join(["nnjax", name, quoted(config.data), *words])


def quoted(value: Any) -> str:
    """As a shell takes it."""
    return shlex.quote(str(int(value) if isinstance(value, float) and value.is_integer() else value))


def note_anyway(path: Path) -> Callable[[Any, Any], None]:
    """A callback that notes in the folder that the run or sweep went on with --anyway: not before it did."""

    def callback(ts: Any, record: Any) -> None:
        if jax.process_index() == 0:
            run_folder.note_resumed_anyway(path)

    return callback
