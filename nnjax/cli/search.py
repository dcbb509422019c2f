"""`nnjax search`: find the best settings, and stop bad ones early."""

import csv
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import typer
from rich.markup import escape

from nnjax import plot, train
from nnjax.cli import options as o
from nnjax.cli import run_folder
from nnjax.cli.config import SETTINGS, STRUCTURAL, SWEEPABLE, Config, check_settings
from nnjax.cli.console import console, option_name, say
from nnjax.cli.devices import start_devices, versions
from nnjax.cli.evaluation import score_prediction
from nnjax.cli.history import in_target_units, read_number
from nnjax.cli.hyperparameters import Values, parse_values
from nnjax.cli.leaders import leaders_table, shown_leaders
from nnjax.cli.messages import explain
from nnjax.cli.prepare import Prepared, absolute_path, check_data_options, fashion_mnist_folder, prepare
from nnjax.cli.rescue import write_results
from nnjax.cli.resuming import check_resume, record_anyway, written_settings
from nnjax.cli.sweep import make_swept_run, shortest_number, train_command_of
from nnjax.storage.atomic_write import write_file, write_records
from nnjax.train.engine.ensemble import platform_strategy
from nnjax.train.space import Dimension

D = o.DEFAULTS
ROWS_PRINTED = 10
MEMBERS = 5  # networks in the ensemble whose test score is printed
SEARCHED = "Settings: numbers, lists or ranges low..high or low..high:log"
SEARCH = "Search"
PICTURE = "search.png"
OWN = ("trials", "population", "rungs", "method", "keep_share", "seeds")  # the settings of the search itself


class Request(NamedTuple):
    """The parsed settings of a search."""

    config: Config  # the settings that are not searched, the largest width, and the epochs of the last rung
    space: dict[str, Dimension]
    rungs: tuple[float, ...]


def search_command(
    ctx: typer.Context,
    name: o.Name = None,
    learning_rate: Annotated[str | None, o.option(o.LEARNING_RATE_HELP, SEARCHED, "--learning-rate", "--lr")] = None,
    width: Annotated[str, o.option(o.WIDTH_HELP, SEARCHED)] = str(D.width),
    dropout: Annotated[str | None, o.option(o.DROPOUT_HELP, SEARCHED)] = None,
    weight_decay: Annotated[str | None, o.option(o.WEIGHT_DECAY_HELP, SEARCHED)] = None,
    label_smoothing: Annotated[str, o.option(o.LABEL_SMOOTHING_HELP, SEARCHED)] = str(D.label_smoothing),
    depth: Annotated[str, o.option("Number of hidden layers; a list is searched one by one.", SEARCHED)] = str(D.depth),
    activation: Annotated[str | None, o.option("Activation function, or a list of them.", SEARCHED)] = None,
    norm: Annotated[str | None, o.option("Normalisation: none, batch or layer, or a list.", SEARCHED)] = None,
    optimizer: Annotated[str, o.option("Update rule, or a list of them.", SEARCHED)] = D.optimizer,
    batch_size: Annotated[str, o.option("Examples per step, or a list.", SEARCHED)] = str(D.batch_size),
    trials: Annotated[int, o.option("Number of settings to try.", SEARCH)] = 256,
    population: Annotated[int, o.option("Number of networks that are trained at the same time.", SEARCH)] = 64,
    rungs: Annotated[
        str, o.option("Epochs after which trials are compared; the last is the full length.", SEARCH)
    ] = "1,3,9,27",
    method: Annotated[
        Literal["random", "halving", "hyperband", "pbt", "tpe"],
        o.option(
            "random never stops a trial; halving keeps the best share at each rung; hyperband starts stopping at "
            "different rungs; tpe is halving with settings proposed by a model; pbt replaces the worst by copies of "
            "the best.",
            SEARCH,
        ),
    ] = "halving",
    keep_share: Annotated[
        float | None, o.option("Share of the trials that continues at a rung. Default: 1/3; 0.8 for pbt.", SEARCH)
    ] = None,
    seeds: Annotated[int, o.option("Networks per setting, each with its own seed.", SEARCH)] = 1,
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
    schedule: o.Schedule = D.schedule,
    clip: o.Clip = None,
    class_weights: o.ClassWeights = D.class_weights,
    seed: o.Seed = D.seed,
    strategy: o.Strategy = D.strategy,
    out: Annotated[
        Path | None,
        o.path_option("Folder of the search. Default: runs/search-DATA-DATE-TIME.", o.OUTPUT, "--out", "-o"),
    ] = None,
    resume: o.Resume = None,
    anyway: o.Anyway = False,
    plots: o.Plots = True,
) -> None:
    """Find the best settings by their validation loss, and stop bad ones early.

    The test rows are held out first, and used only once, to score the result.

    A setting is searched if it gets a range, low..high or low..high:log, or a
    list, a,b,c. Lists of --depth, --activation, --norm, --optimizer and
    --batch-size change the program: each combination is compiled.

    For example: nnjax search digits --learning-rate 1e-4..1e-1:log --dropout 0..0.5 --width 16,32,64
    """
    began = time.perf_counter()
    settings = {
        **asdict(Config(absolute_path(name or ""), data_dir=fashion_mnist_folder(name or "", data_dir))),
        "target": target, "task": task, "categorical": categorical, "drop": drop, "missing": missing, "na": na,
        "sep": sep, "decimal": decimal, "test_share": test_share,
        "validation": validation, "learning_rate": learning_rate, "width": width, "dropout": dropout,
        "weight_decay": weight_decay, "label_smoothing": label_smoothing, "depth": depth, "activation": activation,
        "norm": norm, "optimizer": optimizer, "batch_size": batch_size, "schedule": schedule, "clip": clip,
        "class_weights": class_weights, "seed": seed, "strategy": strategy, "trials": trials,
        "population": population, "rungs": rungs, "method": method, "keep_share": keep_share, "seeds": seeds,
    }  # fmt: skip
    written = written_settings(ctx)
    if resume is None:
        check_data_options("search", name, written, anyway=anyway)
    else:
        saved = run_folder.load_search(resume)
        fixed = {name: value for name, value in settings.items() if name in written}
        check_resume(resume, out, saved=saved, written=fixed, finished=run_folder.is_finished(resume))
        settings = settings | saved
    request = _parse_request(settings)
    own = {name: settings[name] for name in OWN}
    mesh = start_devices(min(own["population"], own["trials"]) * own["seeds"], None)
    settings["strategy"] = request.config.strategy or platform_strategy(mesh)
    config = replace(request.config, strategy=settings["strategy"])
    prepared = prepare(config)
    path = resume or out or Path("runs") / f"search-{Path(config.data).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    inexact = anyway or (resume is not None and run_folder.resumed_anyway(resume))

    def save_settings(path: Path) -> None:
        run_folder.save_search(path, settings, versions())
        if inexact:
            run_folder.record_resumed_anyway(path)

    def write(path: Path) -> None:
        if plots:
            _draw(path, request, table, own["method"])
        write_records(path / run_folder.TRIALS, table)

    if resume is None:
        save_settings(run_folder.create(path))
    say(
        f"{own['trials']} trials of {', '.join(map(option_name, request.space))}, {own['population']} at a time, "
        f"method {own['method']}, strategy {config.strategy}; the test rows are not used before the end; the folder is "
        f"[bold]{escape(str(path))}[/]"
    )
    with explain("search", path, save_settings), shown_leaders(own["trials"], list(request.space)) as show:
        if anyway:
            record_anyway(path)
        found = train.search(
            partial(make_swept_run, config, prepared),
            request.space,
            prepared.training,
            validation=prepared.held_out,
            trials=own["trials"],
            population=own["population"],
            rungs=request.rungs,
            keep=own["keep_share"],
            method=own["method"],
            score="nll" if "label_smoothing" in request.space else "loss",
            key=jax.random.key(config.seed),
            seeds=own["seeds"],
            strategy=config.strategy,
            mesh=mesh,
            out=path / run_folder.CHECKPOINTS,
            resume="anyway" if anyway else resume is not None,
            save_every=config.save_every,
            callbacks=[show],
            progress=False,
        )
    table = [in_target_units(row, prepared.dataset.table.target_std) for row in found.table]
    names = list(request.space)
    path, _ = write_results(path, write, save_settings)
    caption = f"the best {min(ROWS_PRINTED, len(table))} of {len(table)}; all are in {run_folder.TRIALS}"
    console.print(leaders_table(table, names, caption, rows=ROWS_PRINTED))
    _report(config, prepared, found, seeds=own["seeds"])
    say(f"written to [bold]{escape(str(path))}[/] after {time.perf_counter() - began:.1f} s")


def _parse_request(settings: dict[str, Any]) -> Request:
    """Parse the settings of a search.

    Args:
      settings: the settings of a run, with text or None for those that can be searched, and the ones in `OWN`.

    Raises:
      ValueError: for every mistake that can be seen without the data.
    """
    numbers = {name: parse_values(name, settings[name]) for name in SWEEPABLE if settings[name] is not None}
    listed = {name: _parse_list(name, settings[name]) for name in STRUCTURAL if settings[name] is not None}
    constants = {name: v.numbers[0] for name, v in numbers.items() if v.constant}
    constants |= {name: values[0] for name, values in listed.items()}
    fixed = {name: settings[name] for name in SETTINGS if name not in (*SWEEPABLE, *STRUCTURAL)}
    rungs = _parse_rungs(settings["rungs"])
    config = Config(**fixed | constants | {"epochs": rungs[-1]})
    space = {name: _dimension(name, v) for name, v in numbers.items() if not v.constant}
    space |= {name: train.structure(values) for name, values in listed.items() if len(values) > 1}
    if not space:
        raise ValueError("nothing is searched; give a list or a range, as in --learning-rate 1e-4..1e-1:log")
    for name in ("trials", "population", "seeds"):
        if settings[name] < 1:
            raise ValueError(f"{option_name(name)} must be ≥ 1, got {settings[name]}")
    share = settings["keep_share"]
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"--keep-share must be in (0, 1], got {share:g}")
    if config.validation == 0:
        raise ValueError("a search compares trials by validation loss; --validation must be > 0")
    for combination in itertools.product(*listed.values()):
        structure = replace(config, **dict(zip(listed, combination, strict=True)))
        if "width" in space and structure.depth == 0:
            raise ValueError("--width cannot be searched with --depth 0; give one number")
        for name, values in numbers.items():
            for number in (values.low, values.high):
                setting: dict[str, Any] = {name: number}
                check_settings(replace(structure, **setting))
    if "width" in space:
        config = replace(config, width=int(numbers["width"].high))
    return Request(config, space, rungs)


def redraw_search(path: Path) -> None:
    """Draw the picture of a finished search again.

    Raises:
      FileNotFoundError: if the search is not finished.
    """
    settings = run_folder.load_search(path)
    request = _parse_request(settings)
    if not (path / run_folder.TRIALS).is_file():
        raise FileNotFoundError(f"{path} holds an unfinished search: {run_folder.TRIALS} is missing")
    texts = [name for name, d in request.space.items() if any(isinstance(value, str) for value in d.values)]
    with (path / run_folder.TRIALS).open(newline="", encoding="utf-8") as file:
        table = [
            {name: value if name in (*texts, "status") else read_number(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]
    _draw(path, request, table, settings["method"])


def _draw(path: Path, request: Request, table: Sequence[Mapping[str, Any]], method: str) -> None:
    context = f"{Path(request.config.data).name} · {len(table)} trials, method {method}"
    figure = plot.search(table, list(request.space), log=_log_names(request), context=context)
    write_file(path / PICTURE, plot.png(figure))


def _log_names(request: Request) -> list[str]:
    """Return the settings whose values span more than a factor of ten, or are drawn log-uniformly."""
    numbers = {name: d for name, d in request.space.items() if d.kind != "structure"}
    return [name for name, d in numbers.items() if d.kind == "log" or max(d.values) > 10 * min(d.values) > 0]


def _parse_list(name: str, text: str) -> list[Any]:
    """Return the values in a list a,b,c, of the type of the setting."""
    kind = int if SETTINGS[name] is int else str
    try:
        values = [kind(part.strip()) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option_name(name)} {text}: expected an integer, or a list of integers a,b,c") from None
    return list(dict.fromkeys(values))


def _parse_rungs(text: str) -> tuple[float, ...]:
    try:
        rungs = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--rungs {text}: expected numbers of epochs, as in 1,3,9,27") from None
    if not all(0 < a < b for a, b in itertools.pairwise((*rungs, float("inf")))):
        raise ValueError(f"--rungs {text}: the numbers of epochs must be positive and ascending, as in 1,3,9,27")
    return rungs


def _dimension(name: str, values: Values) -> Dimension:
    """Return the dimension of the values of an option: a list for a range with a count and for integers."""
    if values.spacing is None or values.size is not None:
        return train.choice(values.numbers)
    if name == "width" or values.spacing == "int":
        return train.choice(range(int(values.low), int(values.high) + 1))
    return (train.log_uniform if values.spacing == "log" else train.uniform)(values.low, values.high)


def _report(config: Config, prepared: Prepared, found: train.Search, *, seeds: int) -> None:
    """Print the result of a search: how far early scores can be trusted, the test scores, and the command."""
    if found.best is None:
        say("[bold yellow]all trials diverged[/]; search smaller learning rates, or add --clip 1")
        return
    finished = sum(row["status"] == "finished" for row in found.table)
    correlations = [f"{value:.2f}" for value in found.rank_correlations if not math.isnan(value)]
    if correlations:
        say(
            f"rank correlation of early scores with the last ones, of the {finished} trials that have both: "
            f"{', '.join(correlations)}"
        )
    if found.advantage is not None:
        d = found.advantage
        say(f"the best trial is better than the second by {d.difference:.3g} [{d.low:.3g}, {d.high:.3g}] (95 %)")
    alone = found._replace(networks=found.networks[:1]).ensemble(1)
    together = found.ensemble(MEMBERS)
    test, run = prepared.dataset.test, found.best.run
    for label, selection in (("best setting", alone), (f"ensemble of {MEMBERS}", together)):
        scores = score_prediction(run, selection.predict(test.x), test)  # type: ignore[arg-type]
        scores = in_target_units({k: float(v) for k, v in scores.items()}, prepared.dataset.table.target_std)
        say(f"test scores of the {label}: " + ", ".join(f"{k.replace('_', ' ')} {v:.4f}" for k, v in scores.items()))
    best = {name: shortest_number(value) for name, value in found.best.settings.items()}
    members = seeds if seeds > 1 else None
    # Never stops early, but keeps the network with the lowest validation loss
    last = config.epochs or 0
    patience = math.ceil(last) if found.best.epochs < last else None
    command = train_command_of(replace(config, **best, members=members, patience=patience, strategy=None))
    say(f"train the best setting again with: [bold]{escape(command)}[/]")
