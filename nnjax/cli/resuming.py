"""Collect the settings of a command, check the options of --resume, and record the use of --anyway."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import typer

from nnjax.cli import run_folder
from nnjax.cli.console import option_name
from nnjax.cli.prepare import absolute_path, fashion_mnist_folder
from nnjax.storage.lock import folder_lock
from nnjax.train.engine.errors import format_differences


def written_settings(ctx: typer.Context) -> set[str]:
    """Return the names of the settings that the user wrote on the command line."""
    names = {name for name in ctx.params if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"}
    return {"data" if name == "name" else name for name in names}


def settings_from(ctx: typer.Context, names: Iterable[str]) -> dict[str, Any]:
    """Return the values of the options that are settings, and the absolute paths of the data.

    Each argument of a command's function defines one of these options.

    Args:
      ctx: the context of the command.
      names: names of the settings; those that the command does not have are omitted.
    """
    name, params = ctx.params["name"] or "", ctx.params
    settings = {setting: params[setting] for setting in names if setting in params}
    return settings | {"data": absolute_path(name), "data_dir": fashion_mnist_folder(name, params["data_dir"])}


def check_resume(
    path: Path, out: Path | None, *, saved: dict[str, Any], options: dict[str, Any], finished: bool
) -> None:
    """Check that a run, a sweep or a search can be resumed with the options on the command line.

    Args:
      path: folder of the run, the sweep or the search.
      out: the value of --out, which must be None.
      saved: the settings in the folder.
      options: the settings on the command line; they must equal the saved ones.
      finished: True if the folder contains all results.

    Raises:
      ValueError: if a setting differs (the message contains a table), if `out` is set, or if the run is finished.
    """
    if out is not None:
        raise ValueError("--resume already names the folder; omit --out")
    rows = [
        ("DATA" if name == "data" else option_name(name), str(saved[name]), str(value))
        for name, value in options.items()
        if saved[name] != value
    ]
    if rows:
        raise ValueError(
            f"--resume continues with the settings of {path}, but the command line has different ones:\n"
            f"{format_differences(rows)}\nomit them, or start a new run with --out"
        )
    if finished:
        raise ValueError(f"{path} is finished; there is nothing to resume")


def record_anyway(path: Path) -> None:
    """Record in the folder that the run, sweep or search is resumed with --anyway.

    Raises:
      BlockingIOError: if another process is training in the folder. Then nothing is recorded.
    """
    if jax.process_index() > 0:
        return
    checkpoints = path / run_folder.CHECKPOINTS
    checkpoints.mkdir(exist_ok=True)
    with ExitStack() as locks:
        for folder in (checkpoints, *checkpoints.glob("group-*")):
            locks.enter_context(folder_lock(folder))
        run_folder.record_resumed_anyway(path)
