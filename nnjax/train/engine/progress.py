"""Show progress bars for runs and searches."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

import numpy as np

Show = Callable[[dict[str, Any], int], None]  # (record, number of steps taken)
ShowTrials = Callable[[int, float], None]  # (number of trials that have ended, lowest score)
FIXED = ("epoch", "step", "loss")
SCORES = {
    "validation_accuracy": "validation accuracy",
    "validation_r2": "validation R²",
    "validation_loss": "validation loss",
}


@contextmanager
def progress_bar(total: int, epochs: float, *, show: bool) -> Iterator[Show]:
    """Yield a function that shows a record and the number of steps taken. For several members, it shows the means.

    The bar shows "compiling …" until the first record, which has no loss. The speed is measured from this record on, so
    it is also correct for a resumed run.

    Nothing is shown without rich, if the error stream is not a terminal, or in a Jupyter notebook without ipywidgets.
    """
    with _bar(total, show=show) as set_fields:
        if set_fields is None:
            yield lambda record, step: None
            return
        started = [time.perf_counter(), 0.0]  # time and step of the first record

        def update(record: dict[str, Any], step: int) -> None:
            if "loss" not in record:
                started[:] = time.perf_counter(), step
                set_fields(step, text="")
                return
            text = f"loss {_mean(record['loss']):.4g}"
            score = next((name for name in SCORES if name in record), None)  # only one, so that the line fits
            text += f"  {SCORES[score]} {_mean(record[score]):.4f}" if score else ""
            logged = [name for name in record if name not in FIXED and not name.startswith("validation_")]
            text += "".join(f"  {name} {_mean(record[name]):.4g}" for name in logged[:2])
            rate = (step - started[1]) / max(time.perf_counter() - started[0], 1e-9)
            speed = f"{rate / 1000:,.0f}k steps/s" if rate >= 10_000 else f"{rate:,.0f} steps/s"
            left = f"  {timedelta(seconds=round((total - step) / rate))}" if rate > 0 and step < total else ""
            done = min(record["epoch"], epochs)
            epoch = f"epoch {math.floor(done) if epochs >= 10 else round(done, 1):g}/{epochs:.6g}"
            set_fields(step, epoch=epoch, text=text, rate=speed + left)

        yield update


@contextmanager
def trials_bar(trials: int, *, show: bool) -> Iterator[ShowTrials]:
    """Yield a function that shows how many trials of a search have ended, and the best score; see `progress_bar`."""
    with _bar(trials, show=show) as set_fields:
        if set_fields is None:
            yield lambda ended, score: None
            return
        began, before = time.perf_counter(), -1  # a resumed search begins with trials that have ended

        def update(ended: int, score: float) -> None:
            nonlocal began, before
            if before < 0:
                began, before = time.perf_counter(), ended
            rate = (ended - before) / max(time.perf_counter() - began, 1e-9)
            left = f"{timedelta(seconds=round((trials - ended) / rate))}" if rate > 0 and ended < trials else ""
            text = f"best score {score:.4g}" if math.isfinite(score) else ""
            set_fields(ended, epoch=f"trial {ended:,}/{trials:,}", text=text, rate=left)

        yield update


@contextmanager
def _bar(total: int, *, show: bool) -> Iterator[Callable[..., None] | None]:
    """Yield a function that updates the progress and texts of the bar, or None if no bar can be shown."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column
    except ModuleNotFoundError:
        show = False
    if not show or not _can_show(console := Console(file=sys.stderr)):
        yield None
        return
    columns = (
        TextColumn("{task.fields[epoch]}"),
        BarColumn(bar_width=6),
        TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        TextColumn("{task.fields[rate]}", table_column=Column(no_wrap=True)),
    )
    # Ctrl-C prints ^C after the bar. If the line were full, it would wrap, and the bar would be drawn twice
    console.width = max(console.width - 3, 20)
    with Progress(*columns, console=console, transient=False) as bar:
        task = bar.add_task("train", total=total, epoch="", text="compiling …", rate="")
        yield lambda done, **texts: bar.update(task, completed=done, **texts)


def _can_show(console: Any) -> bool:
    """Return True for a terminal, and for a Jupyter notebook with ipywidgets (without it, rich only warns)."""
    return find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal


def _mean(values: Any) -> float:
    """Return the mean of all values that are not NaN, or NaN if there are none."""
    values = np.asarray(values, float)
    return float(np.mean(values[~np.isnan(values)])) if not np.isnan(values).all() else float("nan")
