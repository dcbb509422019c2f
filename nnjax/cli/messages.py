"""Adapt the library's errors, warnings and interruptions to the command line."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from nnjax.cli.console import ERROR, complain, quote, show_warning
from nnjax.cli.rescue import SaveSettings, folder_to_resume
from nnjax.train import DivergedWarning, InterruptedRun, RunMismatchError
from nnjax.train.engine.distributed import ProcessLostError
from nnjax.train.engine.errors import format_differences

PROCESS_LOST = 3  # exit code


@contextmanager
def explain(command: str, path: Path, save_settings: SaveSettings) -> Iterator[None]:
    """Explain how to continue after an error or Ctrl-C inside the block, and add advice to divergence warnings.

    The exit code is 130 after Ctrl-C and 3 after the loss of another process.

    Args:
      command: name of the command, "train", "sweep" or "search".
      path: folder of the run, the sweep or the search.
      save_settings: function that writes the settings to another folder if `path` is not writable.
    """
    resume = f"nnjax {command} --resume {quote(path)}"
    try:
        with explain_divergence(path if command == "train" else None):
            yield
    except RunMismatchError as error:
        raise ValueError(_mismatch(error)) from None
    except BlockingIOError:  # another process has locked the folder, so --resume would fail, too
        raise
    except OSError as error:
        error.add_note(f"continue with: {resume}")
        raise
    except ProcessLostError:
        complain(f"another process ended or cannot be reached; continue in all processes with: {resume}", ERROR)
        sys.stdout.flush()
        os._exit(PROCESS_LOST)  # a normal exit would wait for the lost process
    except KeyboardInterrupt as stop:
        step = ""
        if isinstance(stop, InterruptedRun):
            # trials of a search end at different steps
            step = "" if command == "search" else f" after step {stop.step}"
            path = folder_to_resume(path, stop.folder, save_settings)
        complain(f"stopped{step}; continue with: nnjax {command} --resume {quote(path)}")
        raise typer.Exit(130) from None


@contextmanager
def explain_divergence(path: Path | None) -> Iterator[None]:
    """Add advice to all divergence warnings inside the block.

    Args:
      path: folder of a run, to suggest `nnjax replay`; None for a sweep or a search.
    """
    show = warnings.showwarning

    def show_divergence(message: Warning | str, *rest: Any) -> None:
        if isinstance(message, DivergedWarning):
            show_warning(_divergence(message, path))
        else:
            show(message, *rest)

    warnings.showwarning = show_divergence  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.showwarning = show


def _divergence(warning: DivergedWarning, path: Path | None) -> str:
    network = "the run" if warning.member is None else f"network {warning.member}"
    replay = "" if path is None else f"; nnjax replay {quote(path)} finds the cause"
    fix = (
        "The weights had not been updated, so the likely cause is in the data"
        if warning.step == 0
        else "A smaller --learning-rate or --clip 1 may help"
    )
    return f"{network} diverged: the loss of step {warning.step} is {warning.loss}. {fix}{replay}"


def _mismatch(error: RunMismatchError) -> str:
    remedy = "start a new run with --out"
    if error.resumable:
        remedy = f"continue with --anyway (the result is then not reproducible bit for bit), or {remedy}"
    return (
        f"{error.folder}: the run differs from the saved one and cannot be continued exactly:\n"
        f"{format_differences(error.differences)}\n{remedy}"
    )
