"""The progress bar of a run."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np

Show = Callable[[dict[str, Any], int], None]  # (record, steps done)
FIXED = ("epoch", "step", "loss")
SCORES = ("validation_accuracy", "validation_r2", "validation_loss")


@contextmanager
def progress_bar(total: int, *, show: bool) -> Iterator[Show]:
    """Yield a function that shows a record and the steps done; for several members it shows their means.

    Nothing is shown without rich, if the error stream is not a terminal, or in a Jupyter notebook without ipywidgets.
    """
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ModuleNotFoundError:
        show = False
    if not show or not _can_show(console := Console(file=sys.stderr)):
        yield lambda record, step: None
        return
    columns = (
        TextColumn("epoch {task.fields[epoch]:.4g}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TextColumn("{task.fields[rate]:,.0f} steps/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=False) as bar:
        task = bar.add_task("train", total=total, epoch=0.0, text="", rate=0.0)

        def update(record: dict[str, Any], step: int) -> None:
            text = f"loss {_mean(record['loss']):.4g}"
            score = next((name for name in SCORES if name in record), None)  # few numbers: the line must fit a terminal
            text += f"  {score.replace('_', ' ')} {_mean(record[score]):.4f}" if score else ""
            logged = [name for name in record if name not in FIXED and not name.startswith("validation_")]
            text += "".join(f"  {name} {_mean(record[name]):.4g}" for name in logged[:2])
            elapsed = bar.tasks[task].elapsed or 0.0
            bar.update(task, completed=step, epoch=record["epoch"], text=text, rate=step / elapsed if elapsed else 0.0)

        yield update


def _can_show(console: Any) -> bool:
    """Return True for a terminal, and for a Jupyter notebook with ipywidgets (without it, rich only warns)."""
    return find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal


def _mean(values: Any) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    values = np.asarray(values, float)
    return float(np.mean(values[~np.isnan(values)])) if not np.isnan(values).all() else float("nan")
