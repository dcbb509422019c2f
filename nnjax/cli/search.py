"""`nnjax search`: find the best settings, and stop bad ones early."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from nnjax import train
from nnjax.cli import options as o
from nnjax.cli import run_folder
from nnjax.cli.config import LEAST_STEPS, MOST_EPOCHS, SEARCH_SETTINGS, Config
from nnjax.cli.console import console, option_name, say
from nnjax.cli.devices import start_devices, versions
from nnjax.cli.history import in_target_units
from nnjax.cli.leaders import leaders_table, shown_leaders
from nnjax.cli.messages import explain
from nnjax.cli.prepare import check_data_options
from nnjax.cli.rescue import write_results
from nnjax.cli.resuming import check_resume, record_anyway, settings_from, written_settings
from nnjax.cli.search_model import save_networks
from nnjax.cli.search_plan import plan_search
from nnjax.cli.search_program import check_program, prepare_search, search_arguments
from nnjax.cli.search_receipt import write_receipt
from nnjax.cli.search_report import SearchSubject, draw_search
from nnjax.cli.search_request import describe_replicates, members_of, parse_request
from nnjax.cli.search_result import make_result, print_result
from nnjax.storage.atomic_write import write_json, write_records
from nnjax.train.engine.ensemble import platform_strategy
from nnjax.train.engine.options import Record

D = o.DEFAULTS
ROWS_PRINTED = 10
SEARCHED = "Settings: numbers, lists or ranges low..high or low..high:log"
SEARCH = "Search"


def search_command(
    ctx: typer.Context,
    name: o.Name = None,
    learning_rate: Annotated[str | None, o.option(o.LEARNING_RATE_HELP, SEARCHED, "--learning-rate", "--lr")] = None,
    width: Annotated[str, o.option(o.WIDTH_HELP, SEARCHED)] = str(D.width),
    dropout: Annotated[str | None, o.option(o.DROPOUT_HELP, SEARCHED)] = None,
    weight_decay: Annotated[str | None, o.option(o.WEIGHT_DECAY_HELP, SEARCHED)] = None,
    label_smoothing: Annotated[str, o.option(o.LABEL_SMOOTHING_HELP, SEARCHED)] = str(D.label_smoothing),
    depth: Annotated[str, o.option("Number of hidden layers, or a list.", SEARCHED)] = str(D.depth),
    activation: Annotated[str | None, o.option("Activation function, or a list.", SEARCHED)] = None,
    norm: Annotated[str | None, o.option("Normalisation: none, batch or layer, or a list.", SEARCHED)] = None,
    optimizer: Annotated[str, o.option("Update rule, or a list.", SEARCHED)] = D.optimizer,
    batch_size: Annotated[str, o.option("Examples per step, or a list.", SEARCHED)] = str(D.batch_size),
    trials: Annotated[int, o.option("Number of settings to try.", SEARCH)] = 256,
    population: Annotated[int, o.option("Number of trials to train in parallel.", SEARCH)] = 64,
    rungs: Annotated[
        str | None,
        o.option(
            "Epochs after which trials are compared. Training ends after the last. Default: 1,3,9,27, and more for a "
            f"regression on few rows, so that the last is after {LEAST_STEPS} steps, but at most {MOST_EPOCHS} epochs.",
            SEARCH,
        ),
    ] = None,
    method: Annotated[
        Literal["random", "halving", "hyperband", "pbt", "tpe"],
        o.option(
            "random never stops a trial; halving keeps only the best trials at each rung; hyperband is halving "
            "that starts at different rungs; tpe is halving with settings proposed by a model; pbt replaces the worst "
            "trials with copies of the best.",
            SEARCH,
        ),
    ] = "halving",
    keep_share: Annotated[
        float | None, o.option("Share of the trials that continue after a rung. Default: 1/3; 0.8 for pbt.", SEARCH)
    ] = None,
    patience: Annotated[
        int | None,
        o.option("Stop a trial whose score has not improved for this many rungs. Default: no limit.", SEARCH),
    ] = None,
    seeds: Annotated[int, o.option("Networks per setting, each with its own seed.", SEARCH)] = 1,
    folds: Annotated[
        int | None,
        o.option("Score each setting by the mean over this many folds, instead of on validation rows.", SEARCH),
    ] = None,
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
    plan: Annotated[bool, o.flag("--plan", "Print the cost estimate and exit.", o.OUTPUT)] = False,
) -> None:
    """Find the best settings by their validation loss, and stop bad ones early.

    The test rows are held out first, and used only once, to score the result.

    A setting is searched if its value is a range, low..high or low..high:log,
    or a list, a,b,c. For lists of --depth, --activation, --norm, --optimizer
    and --batch-size, each combination is compiled separately.

    For example: nnjax search digits --learning-rate 1e-4..1e-1:log --dropout 0..0.5 --width 16,32,64
    """
    began = time.perf_counter()
    settings = asdict(Config("")) | settings_from(ctx, SEARCH_SETTINGS)
    option_names = written_settings(ctx)
    if resume is None:
        check_data_options("search", name, option_names, anyway=anyway)
    else:
        saved = run_folder.load_search(resume)
        options = {name: value for name, value in settings.items() if name in option_names}
        check_resume(resume, out, saved=saved, options=options, finished=run_folder.is_finished(resume))
        settings = settings | saved
    _check_validation(option_names, settings["folds"])
    parse_request(settings)  # finds mistakes before anything is read
    mesh = start_devices(members_of(settings), None)
    setup = prepare_search(settings, settings["strategy"] or platform_strategy(mesh))
    settings, request, prepared = setup
    config = request.config
    check_program(setup)
    if plan:
        say(escape(plan_search(setup, mesh)))
        return
    path = resume or out or Path("runs") / f"search-{Path(config.data).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    inexact = anyway or (resume is not None and run_folder.resumed_anyway(resume))

    def save_settings(path: Path) -> None:
        run_folder.save_search(path, settings, versions())
        if inexact:
            run_folder.record_resumed_anyway(path)

    def write(path: Path) -> None:
        write_records(path / run_folder.TRIALS, table)
        write_json(path / run_folder.RESULT, result)
        run_folder.save_table(path, prepared.dataset.table)
        if outcome.best is not None:
            save_networks(path, outcome, result)
        draw_search(path, SearchSubject(request, settings, table, result), pictures=plots)
        write_receipt(path, setup, outcome, mesh)

    if resume is None:
        run_folder.create(path, save_settings)
    say(
        f"{settings['trials']:,} trials{describe_replicates(settings)} of "
        f"{', '.join(map(option_name, request.space))}, {settings['population']} at a time, compared after "
        f"{settings['rungs']} epochs, method {settings['method']}, strategy {config.strategy}"
    )
    say(f"the test rows are used only at the end; the folder is [bold]{escape(str(path))}[/]")
    with explain("search", path, save_settings), shown_leaders(settings["trials"], list(request.space)) as show:
        if anyway:
            record_anyway(path)
        outcome = train.search(
            **search_arguments(setup, mesh),
            out=path / run_folder.CHECKPOINTS,
            resume="anyway" if anyway else resume is not None,
            save_every=config.save_every,
            callbacks=[show],
            progress=False,
        )
    table = [in_target_units(row, prepared.dataset.table.target_std) for row in outcome.table]
    result = make_result(setup, outcome)
    path, _ = write_results(path, write, save_settings)
    _print_table(table, list(request.space))
    print_result(result, table, request.rungs, resumed=resume is not None)
    say(f"written to [bold]{escape(str(path))}[/] after {time.perf_counter() - began:.1f} s; see {run_folder.REPORT}")
    if result["best"] is None:
        raise typer.Exit(1)


def _check_validation(option_names: set[str], folds: int | None) -> None:
    """Check that --validation and --folds are not combined."""
    if "validation" in option_names and folds is not None:
        raise ValueError("--validation applies only without --folds, which validate on all rows but the test rows")


def _print_table(table: list[Record], names: list[str]) -> None:
    caption = f"the best {ROWS_PRINTED} of {len(table)}; all are in {run_folder.TRIALS}"
    if len(table) <= ROWS_PRINTED:
        caption = f"all {len(table)} trials, also in {run_folder.TRIALS}"
    console.print(leaders_table(console, table, names, caption, rows=ROWS_PRINTED))
