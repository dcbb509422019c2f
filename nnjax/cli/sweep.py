"""`nnjax sweep`: train many settings in one program, and rank them by their validation loss."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table as Grid

from nnjax import train
from nnjax.cli import options as o
from nnjax.cli import run_folder
from nnjax.cli.config import SWEEP_SETTINGS, SWEEPABLE, Config, check_settings, make_run, with_defaults
from nnjax.cli.console import console, note, option_name, quote, say
from nnjax.cli.devices import start_devices, versions
from nnjax.cli.fitting import fit_arguments
from nnjax.cli.history import VALIDATION_SCORES, in_target_units, in_words, read_records
from nnjax.cli.hyperparameters import Values, combine, parse_values
from nnjax.cli.messages import explain
from nnjax.cli.prepare import Prepared, check_data_options, prepare, with_defined_scores
from nnjax.cli.rescue import write_results
from nnjax.cli.resuming import check_resume, record_anyway, settings_from, written_settings
from nnjax.cli.sweep_report import SweepSubject, draw_sweep
from nnjax.storage.atomic_write import write_records
from nnjax.train.engine.ensemble import platform_strategy
from nnjax.train.engine.options import Record
from nnjax.train.run import Run

D = o.DEFAULTS
ROWS_PRINTED = 10
SWEPT = "Hyper-parameters: numbers, lists or ranges"


class Request(NamedTuple):
    """The parsed settings of a sweep."""

    config: Config  # the settings that are not swept, with the largest width
    swept: dict[str, Values]
    random: int | None  # number of random settings; None means all combinations
    seeds: int  # number of networks per setting


def sweep_command(
    ctx: typer.Context,
    name: o.Name = None,
    learning_rate: Annotated[str | None, o.option(o.LEARNING_RATE_HELP, SWEPT, "--learning-rate", "--lr")] = None,
    width: Annotated[str, o.option(o.WIDTH_HELP, SWEPT)] = str(D.width),
    dropout: Annotated[str | None, o.option(o.DROPOUT_HELP, SWEPT)] = None,
    weight_decay: Annotated[str | None, o.option(o.WEIGHT_DECAY_HELP, SWEPT)] = None,
    label_smoothing: Annotated[str, o.option(o.LABEL_SMOOTHING_HELP, SWEPT)] = str(D.label_smoothing),
    random: Annotated[
        int | None, o.option("Draw this many random settings instead of training every combination.", SWEPT)
    ] = None,
    seeds: Annotated[int, o.option("Networks per setting, each with its own seed.", SWEPT)] = 1,
    target: o.Target = None,
    task: o.Task = None,
    categorical: o.Categorical = None,
    drop: o.Drop = None,
    missing: o.Missing = D.missing,
    na: o.Na = None,
    sep: o.Sep = None,
    decimal: o.Decimal = None,
    data_dir: o.DataDir = None,
    test_share: o.TestShare = D.test_share,
    validation: o.Validation = D.validation,
    depth: o.Depth = D.depth,
    activation: o.Activation = None,
    norm: o.Norm = None,
    skip: o.Skip = D.skip,
    optimizer: o.Optimizer = D.optimizer,
    schedule: o.Schedule = D.schedule,
    clip: o.Clip = None,
    class_weights: o.ClassWeights = D.class_weights,
    batch_size: o.BatchSize = D.batch_size,
    epochs: o.Epochs = None,
    patience: o.Patience = None,
    seed: o.Seed = D.seed,
    strategy: o.Strategy = D.strategy,
    group: o.Group = None,
    out: Annotated[
        Path | None, o.path_option("Folder of the sweep. Default: runs/sweep-DATA-DATE-TIME.", o.OUTPUT, "--out", "-o")
    ] = None,
    resume: o.Resume = None,
    anyway: o.Anyway = False,
    plots: o.Plots = True,
) -> None:
    """Train with many settings at once, and rank them by their validation loss. The test data are not used.

    A hyper-parameter is swept if its value is a list, a,b,c, or a range,
    low..high:log:count (or with lin or int in place of log). All combinations
    are trained. With --random, settings are drawn from the lists and ranges
    instead, and the counts are ignored.

    For example: nnjax sweep digits --learning-rate 1e-4..1e-1:log:8 --width 32,64
    """
    began = time.perf_counter()
    settings = asdict(Config("")) | settings_from(ctx, SWEEP_SETTINGS)
    option_names = written_settings(ctx)
    if resume is None:
        check_data_options("sweep", name, option_names, anyway=anyway)
    else:
        saved = run_folder.load_sweep(resume)
        options = {name: value for name, value in settings.items() if name in option_names}
        check_resume(resume, out, saved=saved, options=options, finished=run_folder.is_finished(resume))
        settings = settings | saved
    request = _parse_request(settings)
    config = request.config
    hyper = combine(request.swept, request.random, config.seed)
    count = len(next(iter(hyper.values())))
    mesh = start_devices(count * request.seeds, config.group)
    settings["strategy"] = config.strategy or platform_strategy(mesh)
    config = replace(config, strategy=settings["strategy"])
    prepared = prepare(config)
    unresolved, config = config, prepared.config
    path = resume or out or Path("runs") / f"sweep-{Path(config.data).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    inexact = anyway or (resume is not None and run_folder.resumed_anyway(resume))

    def save_settings(path: Path) -> None:
        run_folder.save_sweep(path, settings, versions())
        if inexact:
            run_folder.record_resumed_anyway(path)

    def write(path: Path) -> None:
        if plots:
            draw_sweep(path, SweepSubject(unresolved, request.swept, table, score, request.seeds), command=command)
        write_records(path / run_folder.ROWS, table)

    if resume is None:
        run_folder.create(path, save_settings)
    times = f" × {request.seeds} seeds" if request.seeds > 1 else ""
    say(
        f"{count} settings of {', '.join(map(option_name, hyper))}{times}, strategy {config.strategy}; "
        f"the folder is [bold]{escape(str(path))}[/]"
    )
    with explain("sweep", path, save_settings):
        if anyway:
            record_anyway(path)
        result = train.sweep(
            partial(make_swept_run, config, prepared),
            hyper,
            prepared.training,
            seeds=request.seeds,
            **fit_arguments(config, prepared, mesh, path=path, resume="anyway" if anyway else resume is not None),
        )
        score = _score(result.table, request.swept)
        target_std = prepared.dataset.table.target_std
        table = [in_target_units(row, target_std) for row in _rank(result.table, score)]
        _print_table(table, list(hyper), score, request.seeds)
        command = _best_command(unresolved, table, request)
        path, _ = write_results(path, write, save_settings)
    _print_best(table, request, command)
    say(f"written to [bold]{escape(str(path))}[/] after {time.perf_counter() - began:.1f} s")


def make_swept_run(config: Config, prepared: Prepared, hyper: dict[str, Any], rows: int | None = None) -> Run:
    """Create the run for one setting; its numbers in `hyper` may be traced.

    Args:
      config: the settings that are not swept.
      prepared: the data.
      hyper: the swept settings.
      rows: number of training rows of a fold; None means all.
    """
    table, numbers = prepared.dataset.table, dict(hyper)
    width = numbers.pop("width", None)
    n = len(prepared.training.x) if rows is None else rows
    config = with_defaults(replace(config, **numbers), table.task, n, prepared.training.x.shape[1])
    return with_defined_scores(make_run(config, table.task, table.outputs, n, width), prepared.held_out, table.task)


def _parse_request(settings: dict[str, Any]) -> Request:
    """Parse the settings of a sweep.

    Args:
      settings: the settings of a run, `random` and `seeds`; those in `SWEEPABLE` are strings or None.

    Raises:
      ValueError: if a setting is invalid, as far as this does not depend on the data.
    """
    random, seeds = settings["random"], settings["seeds"]
    values = {name: parse_values(name, settings[name]) for name in SWEEPABLE if settings[name] is not None}
    swept = {name: v for name, v in values.items() if not v.constant}
    constants: dict[str, Any] = {name: v.numbers[0] for name, v in values.items() if v.constant}
    rest = {name: value for name, value in settings.items() if name not in (*SWEEPABLE, "random", "seeds")}
    config = Config(**rest, **constants)
    if not swept:
        raise ValueError(
            "no setting has several values; pass a list or a range, as in --learning-rate 1e-4..1e-1:log:8"
        )
    for name, number in (("random", random), ("seeds", seeds)):
        if number is not None and number < 1:
            raise ValueError(f"--{name} must be ≥ 1, got {number}")
    for name, v in swept.items():
        if random is None and v.spacing is not None and v.size is None:
            raise ValueError(
                f"{option_name(name)} {v.text} has no count; write {v.low:g}..{v.high:g}:{v.spacing}:8, or use --random"
            )
        for number in (v.low, v.high):
            setting: dict[str, Any] = {name: number, "members": 1}
            check_settings(replace(config, **setting))
    if "width" in swept:
        if config.skip or config.depth == 0:
            option = "--skip" if config.skip else "--depth 0"
            raise ValueError(f"--width cannot be swept with {option}; give one number")
        config = replace(config, width=int(swept["width"].high))
    if config.validation == 0 or config.epochs == 0:
        raise ValueError("a sweep ranks the settings by validation loss; --validation and --epochs must be > 0")
    if "label_smoothing" in swept and config.patience is not None:
        raise ValueError("--patience cannot compare losses with different --label-smoothing; omit one of the two")
    return Request(config, swept, random, seeds)


def _score(table: list[Record], swept: dict[str, Values]) -> str:
    """Return the column to rank by: the loss, or the NLL if the label smoothing, which changes the loss, is swept."""
    if "label_smoothing" in swept:
        return "validation_nll"
    return "best_validation_loss" if "best_validation_loss" in table[0] else "validation_loss"


def _rank(table: list[Record], score: str) -> list[Record]:
    """Sort the rows by score, with diverged settings last; missing scores become NaN."""
    table = [{score: math.nan} | row if score not in row else row for row in table]
    return sorted(table, key=lambda row: (row["diverged"] > 0, math.isnan(row[score]), row[score]))


def _print_table(table: list[Record], names: list[str], score: str, seeds: int) -> None:
    scores = [score, *(name for name in VALIDATION_SCORES if name in table[0])]
    diverged = ["diverged"] if any(row["diverged"] for row in table) else []
    grid = Grid(header_style="bold")
    for name in [*names, *scores, *diverged]:
        grid.add_column(in_words(name), justify="right")
    for row in table[:ROWS_PRINTED]:
        cells = [f"{row[name]:.4g}" for name in names]
        cells += [f"{row[name]:.4f}" + (f" ± {row[f'{name}_sd']:.4f}" if seeds > 1 else "") for name in scores]
        grid.add_row(*cells, *(str(row[name]) for name in diverged))
    if len(table) > ROWS_PRINTED:
        grid.caption = f"the best {ROWS_PRINTED} of {len(table)}; all are in {run_folder.ROWS}"
    console.print(grid)


def redraw_sweep(path: Path) -> None:
    """Redraw the pictures and rewrite the report of a finished sweep.

    Raises:
      FileNotFoundError: if the sweep is not finished.
    """
    request = _parse_request(run_folder.load_sweep(path))
    if not (path / run_folder.ROWS).is_file():
        raise FileNotFoundError(f"{path} holds an unfinished sweep: {run_folder.ROWS} is missing")
    table = read_records(path / run_folder.ROWS)
    score = _score(table, request.swept)
    subject = SweepSubject(request.config, request.swept, table, score, request.seeds)
    draw_sweep(path, subject, command=_best_command(request.config, table, request))


def _print_best(table: list[Record], request: Request, command: str) -> None:
    """Print the command that tests the best setting, and notes on values at an end of their range."""
    for edge in _edges(table, request):
        note(edge)
    if command:
        say(f"test the best setting with: [bold]{escape(command)}[/]")
    else:
        say("[bold yellow]all settings diverged[/]; sweep smaller learning rates, or add --clip 1")


def _edges(table: list[Record], request: Request) -> Iterator[str]:
    """Yield a note for each setting whose best value is the smallest or the largest that was tried."""
    if table[0]["diverged"] > 0:
        return
    for name in request.swept:
        tried, best = [row[name] for row in table], table[0][name]
        if best in (min(tried), max(tried)) and min(tried) < max(tried) and best != 0:  # settings cannot be negative
            extreme = "largest" if best == max(tried) else "smallest"
            yield f"the best {name.replace('_', ' ')}, {best:.4g}, is the {extreme} that was tried; extend its range"


def _best_command(config: Config, table: list[Record], request: Request) -> str:
    """Return the command that trains with the best setting, or "" if all settings diverged."""
    if table[0]["diverged"] > 0:
        return ""
    best: dict[str, Any] = {name: shortest_number(table[0][name]) for name in request.swept}
    best["members"] = request.seeds if request.seeds > 1 else None
    return train_command_of(replace(config, **best))


def train_command_of(config: Config) -> str:
    """Return the command that trains with these settings."""
    changed = {k: v for k, v in asdict(config).items() if v != getattr(D, k) and k != "data"}
    options = [option_name(k) + ("" if v is True else f" {quote(v)}") for k, v in changed.items()]
    return " ".join(["nnjax train", quote(config.data), *options])


def shortest_number(number: Any) -> Any:
    """Return the number with the fewest digits that rounds to the same float32 number."""
    return float(str(np.float32(number))) if isinstance(number, float) else number
