"""`nnjax sweep`: many settings as one program, ranked by their validation loss."""

import itertools
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer
from rich.markup import escape
from rich.table import Table as Grid

from nnjax import plot, train
from nnjax.cli import options as o
from nnjax.cli import run_folder, shared
from nnjax.cli.config import Config, check, make_run
from nnjax.cli.prepare import Prepared, check_new, data_folder, place, prepare
from nnjax.cli.shared import console, say
from nnjax.cli.values import Values, fixed, parse, settings
from nnjax.storage.atomic_write import write_file, write_json, write_records
from nnjax.train.resume import Resume
from nnjax.train.run import Run

D = o.DEFAULTS
SHOWN = 10  # rows
SWEPT = "Swept: numbers, lists, ranges"


def sweep_command(
    ctx: typer.Context,
    name: o.Name = None,
    learning_rate: Annotated[str | None, o.option(f"Highest rate; by default {o.RATES}.", SWEPT)] = None,
    width: Annotated[str, o.option("Width of the hidden layers.", SWEPT)] = str(D.width),
    dropout: Annotated[str, o.option("Probability of dropping a hidden value.", SWEPT)] = str(D.dropout),
    weight_decay: Annotated[str | None, o.option("For adamw and lion; 0.01 by default.", SWEPT)] = None,
    label_smoothing: Annotated[str, o.option("Share of each label that is spread over all classes.", SWEPT)] = str(
        D.label_smoothing
    ),
    random: Annotated[int | None, o.option("So many settings at random instead of every combination.", SWEPT)] = None,
    seeds: Annotated[int, o.option("Networks of each setting.", SWEPT)] = 1,
    target: o.Target = None,
    task: o.Task = None,
    data_dir: o.DataDir = None,
    test_share: o.TestShare = D.test_share,
    validation: o.Validation = D.validation,
    depth: o.Depth = D.depth,
    activation: o.Activation = D.activation,
    norm: o.Norm = D.norm,
    skip: o.Skip = D.skip,
    optimizer: o.Optimizer = D.optimizer,
    schedule: o.Schedule = D.schedule,
    clip: o.Clip = None,
    batch_size: o.BatchSize = D.batch_size,
    epochs: o.Epochs = D.epochs,
    patience: o.Patience = None,
    seed: o.Seed = D.seed,
    strategy: o.Strategy = D.strategy,
    group: o.Group = None,
    out: Annotated[
        Path | None, o.option("Folder for the sweep; by default runs/sweep-DATA-DATE-TIME.", o.OUTPUT)
    ] = None,
    resume: o.Resume = None,
    anyway: o.Anyway = False,
    plots: o.Plots = True,
) -> None:
    """Train with many settings at once, and rank them by the validation loss; the test data are not touched.

    Swept are lists, a,b,c, and ranges, low..high:log:count, with lin or int in
    place of log; one number stays as it is. All combinations are trained, or
    with --random so many settings drawn from the lists and ranges, whose counts
    play no part then.

    For example: nnjax sweep digits --learning-rate 1e-4..1e-1:log:8 --width 32,64
    """
    began = time.perf_counter()
    texts = {
        "learning_rate": learning_rate, "width": width, "dropout": dropout, "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
    }  # fmt: skip
    base = Config(
        place(name or ""), data_folder(name or "", data_dir), target, task, test_share, validation, depth=depth,
        activation=activation, norm=norm, skip=skip, optimizer=optimizer, schedule=schedule, clip=clip,
        batch_size=batch_size, epochs=epochs, patience=patience, seed=seed, strategy=strategy, group=group,
    )  # fmt: skip
    asked = {**asdict(base), **texts, "random": random, "seeds": seeds}
    if resume is not None:
        asked = _resumed(resume, out, asked, shared.given(ctx))
    else:
        check_new("sweep", name, anyway, shared.given(ctx))
    config, values, random, seeds = _understood(asked)
    networks = (random or _size(values)) * seeds
    shared.use_cores(shared.together(config, networks) or 1)
    shared.introduce(shared.mesh_for(shared.together(config, networks)))
    hyper = settings(values, random, config.seed)
    prepared = prepare(config)
    if resume is None:
        stem = f"sweep-{Path(config.data).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
        path = run_folder.create(out or Path("runs") / stem)
        write_json(path / run_folder.SWEEP, {**asked, "versions": shared.versions()})
    else:
        path = resume
    size = len(next(iter(hyper.values())))
    say(
        f"{size} settings of {', '.join(map(_option, hyper))}" + (f" × {seeds} seeds" if seeds > 1 else "")
        + f", strategy {config.strategy}; the folder is [bold]{escape(str(path))}[/]"
    )  # fmt: skip
    how: Resume = "anyway" if anyway else resume is not None
    with shared.explained("sweep", path):
        found = _train(config, prepared, hyper, seeds, path, how)
        score = _score(found.table, values)
        table = [shared.in_units(row, prepared.dataset.table.target_std) for row in _ranked(found.table, score)]
        _print(table, list(hyper), score, seeds)
        if plots:
            _draw(path, table, values, score)
        write_records(path / run_folder.ROWS, table)
    if table[0]["diverged"] == 0:
        best = _with(config, {k: _plain(table[0][k]) for k in hyper} | {"members": seeds if seeds > 1 else None})
        say(f"the best setting, with a test: [bold]{escape(shared.command('train', best, D))}[/]")
    else:
        say("[bold yellow]all settings diverged[/]; sweep smaller learning rates, or take --clip 1")
    say(f"written to [bold]{escape(str(path))}[/] after {time.perf_counter() - began:.1f} s")


def _train(
    config: Config, prepared: Prepared, hyper: dict[str, np.ndarray], seeds: int, path: Path, resume: Resume
) -> train.Sweep:
    """The runs of all settings, with their checkpoints in the folder."""
    networks = seeds * len(next(iter(hyper.values())))
    noting = [shared.note_anyway(path)] if resume == "anyway" else []
    found = train.sweep(
        partial(_make, config, prepared),
        hyper,
        prepared.training,
        epochs=config.epochs,
        validation=prepared.held_out,  # type: ignore[arg-type]  # there is one: it was looked at
        key=jax.random.key(config.seed),
        seeds=seeds,
        strategy=config.strategy,
        mesh=shared.mesh_for(shared.together(config, networks)),
        group=config.group,
        patience=config.patience,
        out=path / run_folder.CHECKPOINTS,
        resume=resume,
        callbacks=[shared.line_per_tenth(config.epochs), *noting],
    )
    for note in noting:  # where no step was left
        note(None, None)
    return found


def _make(config: Config, prepared: Prepared, hyper: dict[str, Any]) -> Run:
    """The run of one setting, whose numbers are traced."""
    table, numbers = prepared.dataset.table, dict(hyper)
    width = numbers.pop("width", None)
    outputs = len(table.classes) or 1
    return make_run(_with(config, numbers), table.task, outputs, len(prepared.training.x), width)


def _understood(asked: dict[str, Any]) -> tuple[Config, dict[str, Values], int | None, int]:
    """The settings with the largest width, what is swept, random settings, seeds.

    Raises:
      ValueError: for what is wrong whatever the data are.
    """
    rest = dict(asked)
    random, seeds = rest.pop("random"), rest.pop("seeds")
    texts = {name: rest.pop(name) for name in ("learning_rate", "width", "dropout", "weight_decay", "label_smoothing")}
    parsed = {name: parse(name, text) for name, text in texts.items() if text is not None}
    swept = {name: values for name, values in parsed.items() if not fixed(values)}
    numbers: dict[str, Any] = {name: values.numbers[0] for name, values in parsed.items() if fixed(values)}
    config = Config(**rest, **numbers)
    if not swept:
        raise ValueError("nothing is swept: give a list or a range, as in --learning-rate 1e-4..1e-1:log:8")
    for name, number in (("random", random), ("seeds", seeds)):
        if number is not None and number < 1:
            raise ValueError(f"--{name}: must be ≥ 1, got {number}")
    for name, values in swept.items():
        if random is None and values.kind is not None and values.size is None:
            raise ValueError(
                f"{_option(name)} {values.text}: how many? {values.low:g}..{values.high:g}:{values.kind}:8, or --random"
            )
        for number in (values.low, values.high):
            check(_with(config, {name: number, "members": 1}))
    if "width" in swept:
        if config.skip or config.depth == 0:
            raise ValueError(f"--width: nothing to sweep with {'--skip' if config.skip else '--depth 0'}; give one")
        config = replace(config, width=int(swept["width"].high))
    if config.validation == 0 or config.epochs == 0:
        raise ValueError("a sweep is ranked by the validation loss: --validation and --epochs must be > 0")
    if "label_smoothing" in swept and config.patience is not None:
        raise ValueError("--patience: losses of different --label-smoothing cannot be compared; leave one of them out")
    return config, swept, random, seeds


def _resumed(path: Path, out: Path | None, asked: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """What was asked of a sweep that is not finished."""
    if out is not None:
        raise ValueError("--resume names the folder; leave --out out")
    saved = run_folder.load_sweep(path)
    shared.check_same(path, saved, asked, [name for name in asked if name in given])
    if (path / run_folder.ROWS).exists():
        raise ValueError(f"{path} is finished; there is nothing to resume")
    return {**asked, **saved}


def _size(values: dict[str, Values]) -> int:
    """Combinations."""
    size = 1
    for one in values.values():
        size *= len(one.numbers)
    return size


def _score(table: list[dict[str, Any]], values: dict[str, Values]) -> str:
    """By what the settings are ranked: with different label smoothing, losses are not comparable, but the NLL is."""
    if "label_smoothing" in values:
        return "validation_nll"
    return "best_validation_loss" if "best_validation_loss" in table[0] else "validation_loss"


def _ranked(table: list[dict[str, Any]], score: str) -> list[dict[str, Any]]:
    """The lowest score first, settings that diverged last; where none was validated, the score is NaN."""
    table = [row if score in row else {**row, score: float("nan")} for row in table]
    return sorted(table, key=lambda row: (row["diverged"] > 0, np.isnan(row[score]), row[score]))


def _print(table: list[dict[str, Any]], names: list[str], score: str, seeds: int) -> None:
    """The best rows."""
    more = [name for name in ("validation_accuracy", "validation_r2") if name in table[0]]
    diverged = [] if not any(row["diverged"] for row in table) else ["diverged"]
    grid = Grid(header_style="bold")
    for name in [*names, score, *more, *diverged]:
        grid.add_column(name.replace("_", " "), justify="right")
    for row in table[:SHOWN]:
        cells = [f"{row[name]:.4g}" for name in names]
        for name in (score, *more):
            cells.append(f"{row[name]:.4f}" + (f" ± {row[f'{name}_sd']:.4f}" if seeds > 1 else ""))
        grid.add_row(*cells, *(str(row[name]) for name in diverged))
    if len(table) > SHOWN:
        grid.caption = f"the best {SHOWN} of {len(table)}; all are in {run_folder.ROWS}"
    console.print(grid)


def _draw(path: Path, table: list[dict[str, Any]], values: dict[str, Values], score: str) -> None:
    """A picture for each pair of what is swept, or one line."""
    names = list(values)
    log = [name for name, one in values.items() if one.kind == "log" or one.high > 10 * one.low > 0]
    pairs: list[tuple[str, ...]] = list(itertools.combinations(names, 2)) if len(names) > 1 else [(names[0],)]
    for pair in pairs:
        figure = plot.sweep(table, pair, log=log, score=score)
        write_file(path / f"{'-'.join(pair)}.png", plot.png(figure))


def _with(config: Config, values: dict[str, Any]) -> Config:
    return replace(config, **values)


def _plain(number: float) -> float:
    """The shortest number that is the same in float32."""
    return number if isinstance(number, int) else float(str(np.float32(number)))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
