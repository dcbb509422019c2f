"""Show the progress of a search: a live table of the best trials, or ten lines of text if there is no terminal."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
from rich.console import Console
from rich.live import Live
from rich.table import Table as Grid

from nnjax.cli.console import format_score
from nnjax.cli.history import VALIDATION_SCORES, in_words
from nnjax.train.engine.options import Record

LEADERS = 5  # number of best trials to show
RUNNING = "running"


def leaders_table(console: Console, table: Sequence[Record], names: Sequence[str], caption: str, *, rows: int) -> Grid:
    """Format the best trials as a table. If the terminal is narrow, omit borders, digits, and then scores.

    Numbers are never cut, so headings of several words have a line for each word.

    Args:
      console: the terminal.
      table: one record per trial, best first.
      names: names of the searched settings.
      caption: text below the table.
      rows: number of rows to show.
    """
    shown, scores = table[:rows], [name for name in VALIDATION_SCORES if table and name in table[0]]
    grid = _grid(shown, names, scores, caption, digits=4)
    if _fits(console, grid):
        return grid
    grid = _narrow(_grid(shown, names, scores, caption, digits=3))
    return grid if _fits(console, grid) else _narrow(_grid(shown, names, [], caption, digits=3))


def _fits(console: Console, grid: Grid) -> bool:
    return console.measure(grid, options=console.options.update(width=1000)).maximum <= console.width


def _narrow(grid: Grid) -> Grid:
    """Return the table without borders."""
    grid.box, grid.padding, grid.pad_edge = None, (0, 1, 0, 0), False
    return grid


def _grid(table: Sequence[Record], names: Sequence[str], scores: Sequence[str], caption: str, *, digits: int) -> Grid:
    spread = "validation_nll_sd" if "label_smoothing" in names else "validation_loss_sd"  # over seeds or folds
    grid = Grid(header_style="bold", caption=caption)
    headings = [name if digits > 3 else name.removeprefix("validation_") for name in scores]
    for name in ["trial", *names, "epochs", "score", *headings]:
        grid.add_column(in_words(name).replace(" ", "\n"), justify="right", no_wrap=True)
    for row in table:
        cells = [f"{row[name]:.{digits}g}" if isinstance(row[name], float) else str(row[name]) for name in names]
        sd = f" ± {row[spread]:.{digits}f}" if spread in row else ""
        numbers = [f"{row['epochs']:g}", format_score(row["score"]) + sd, *(f"{row[name]:.4f}" for name in scores)]
        grid.add_row(str(row["trial"]), *cells, *numbers)
    return grid


@contextmanager
def shown_leaders(trials: int, names: Sequence[str]) -> Iterator[Callable[[list[Record]], None]]:
    """Yield a callback for `train.search` that shows the best trials and the remaining time.

    Args:
      trials: number of trials of the search.
      names: names of the searched settings.
    """
    began: list[tuple[float, int]] = []  # time and number of ended trials at the first call, after compilation
    last = 0
    console = Console(file=sys.stderr)

    def describe(table: list[Record]) -> tuple[int, str]:
        ended, now = sum(row["status"] != RUNNING for row in table), time.perf_counter()
        if not began:
            began.append((now, ended))
        seconds, new = now - began[0][0], ended - began[0][1]
        left = f", about {seconds / new * (trials - ended):.0f} s left" if new and ended < trials else ""
        return ended, f"{ended} of {trials} trials have ended{left}"

    if jax.process_index() > 0:
        yield lambda table: None
        return
    if not console.is_terminal:

        def print_line(table: list[Record]) -> None:
            nonlocal last
            ended, progress = describe(table)
            if 10 * ended // trials > last:
                last = 10 * ended // trials
                print(f"{progress}  {_best(table)}", file=sys.stderr, flush=True)

        yield print_line
        return
    with Live("compiling …", console=console, refresh_per_second=4, transient=True) as live:

        def update(table: list[Record]) -> None:
            live.update(leaders_table(console, table, names, describe(table)[1], rows=LEADERS))

        yield update


def _best(table: list[Record]) -> str:
    best: dict[str, Any] = table[0]
    if not math.isfinite(best["score"]):
        return "no trial has a finite score yet"
    scores = "".join(f"  {in_words(name)} {best[name]:.4f}" for name in VALIDATION_SCORES if name in best)
    number = next((name[6:] for name in best if name.startswith("score_") and best[name] == best["score"]), "0")
    return f"best score {format_score(best['score'])} after {in_epochs(float(number))}{scores}"


def in_epochs(number: float) -> str:
    """Return a number of epochs in words."""
    return "1 epoch" if number == 1 else f"{number:g} epochs"
