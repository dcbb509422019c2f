"""The progress bar of a run."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Show = Callable[[dict[str, float], int], None]  # (record, steps done)
Progress = AbstractContextManager[Show]
SCORES = ("validation_accuracy", "validation_r2", "validation_loss")


@contextmanager
def no_progress() -> Iterator[Show]:
    """Shows nothing."""
    yield lambda record, step: None


@contextmanager
def rich_progress(total: int) -> Iterator[Show]:
    """A bar with loss, validation, steps per second and time left, on a terminal where rich is installed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ModuleNotFoundError:
        yield lambda record, step: None
        return
    console = Console(file=sys.stderr)
    if not console.is_terminal:
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
    with Bar(*columns, console=console, transient=False) as bar:
        task = bar.add_task("train", total=total, epoch=0.0, text="", rate=0.0)

        def show(record: dict[str, float], step: int) -> None:
            text = f"loss {record['loss']:.4g}"
            # One score, for the line is as wide as a terminal
            best = next((name for name in SCORES if name in record), None)
            text += f"  {best.replace('_', ' ')} {record[best]:.4f}" if best else ""
            elapsed = bar.tasks[task].elapsed or 0.0
            bar.update(task, completed=step, epoch=record["epoch"], text=text, rate=step / elapsed if elapsed else 0.0)

        yield show
