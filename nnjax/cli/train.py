"""`nnjax train`: train one network or an ensemble on a data set, and write a run folder."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer
from jax.sharding import Mesh
from rich.markup import escape

from nnjax import train
from nnjax.cli import options as o
from nnjax.cli import pictures, report, run_folder, weights_file
from nnjax.cli.baseline import baseline, class_scores
from nnjax.cli.config import SETTINGS, Config, check_settings
from nnjax.cli.console import note, say
from nnjax.cli.convergence import describe_convergence
from nnjax.cli.devices import join_processes, make_mesh, parallel_networks, start_devices, versions
from nnjax.cli.evaluation import Outcome, evaluate
from nnjax.cli.fitting import fit
from nnjax.cli.history import in_target_units, split_members
from nnjax.cli.html_report import write_report
from nnjax.cli.messages import explain
from nnjax.cli.prepare import Prepared, check_data_options, prepare
from nnjax.cli.receipt import make_receipt
from nnjax.cli.rescue import write_results
from nnjax.cli.resuming import check_resume, record_anyway, settings_from, written_settings
from nnjax.data.table import Table
from nnjax.storage.atomic_write import write_json, write_records
from nnjax.train import Result
from nnjax.train.engine.ensemble import platform_strategy
from nnjax.train.plan import group_that_fits

D = o.DEFAULTS


def train_command(
    ctx: typer.Context,
    name: o.Name = None,
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
    width: Annotated[int, o.option(o.WIDTH_HELP, o.NETWORK)] = D.width,
    depth: o.Depth = D.depth,
    activation: o.Activation = None,
    norm: o.Norm = None,
    dropout: Annotated[float | None, o.option(o.DROPOUT_HELP, o.NETWORK)] = None,
    skip: o.Skip = D.skip,
    optimizer: o.Optimizer = D.optimizer,
    learning_rate: Annotated[
        float | None, o.option(o.LEARNING_RATE_HELP, o.TRAINING, "--learning-rate", "--lr")
    ] = None,
    schedule: o.Schedule = D.schedule,
    schedule_epochs: Annotated[
        float | None,
        o.option("Epochs after which the learning rate has decayed to 0. Default: those of the run.", o.TRAINING),
    ] = None,
    weight_decay: Annotated[float | None, o.option(o.WEIGHT_DECAY_HELP, o.TRAINING)] = None,
    clip: o.Clip = None,
    label_smoothing: Annotated[float, o.option(o.LABEL_SMOOTHING_HELP, o.TRAINING)] = D.label_smoothing,
    class_weights: o.ClassWeights = D.class_weights,
    batch_size: o.BatchSize = D.batch_size,
    epochs: o.Epochs = None,
    patience: o.Patience = None,
    seed: o.Seed = D.seed,
    members: Annotated[
        int | None, o.option("Train an ensemble of this many networks and average their predictions.", o.MANY)
    ] = None,
    strategy: o.Strategy = D.strategy,
    group: o.Group = None,
    out: Annotated[
        Path | None, o.path_option("Folder of the run. Default: runs/DATA-DATE-TIME.", o.OUTPUT, "--out", "-o")
    ] = None,
    resume: o.Resume = None,
    anyway: o.Anyway = False,
    save_every: Annotated[float, o.option("Seconds between checkpoints.", o.OUTPUT)] = D.save_every,
    keep: Annotated[
        int, o.option("Number of latest checkpoints to keep, in addition to the best one.", o.OUTPUT)
    ] = D.keep,
    plots: o.Plots = True,
    plan: Annotated[bool, o.flag("--plan", "Print the cost estimate and exit.", o.OUTPUT)] = False,
    coordinator: o.Coordinator = None,
    processes: o.Processes = None,
    process_id: o.ProcessId = None,
    cluster: o.Cluster = False,
) -> None:
    """Train one network or an ensemble, and write a run folder: settings, metrics per epoch, weights, pictures.

    For example: nnjax train digits, or nnjax train wine.csv --target cultivar

    The exit code is 1 if the training diverged, so there is no network to test.

    Continue an interrupted run: nnjax train --resume runs/digits-20260101-120000
    """
    began = time.perf_counter()
    config = Config(**settings_from(ctx, SETTINGS))
    option_names, saved_table = written_settings(ctx), None
    if resume is None:
        check_data_options("train", name, option_names, anyway=anyway)
    else:
        config, saved_table = _resumed_config(resume, out, config, option_names)
    check_settings(config)
    join_processes(coordinator, processes, process_id, cluster=cluster, folder=resume or out)
    mesh = start_devices(config.members, config.group)
    config = replace(config, strategy=config.strategy or platform_strategy(mesh))
    prepared = prepare(config, saved_table)
    config = prepared.config
    report.print_network(prepared)
    if plan:
        say(escape(str(train.plan(prepared.run, prepared.training, members=config.members or 1, mesh=mesh))))
        return
    if resume is None:
        config = _choose_group(config, prepared, mesh)
        mesh = make_mesh(parallel_networks(config.members, config.group))
    path = resume or out or Path("runs") / f"{Path(config.data).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    first = jax.process_index() == 0
    inexact = anyway or (resume is not None and run_folder.resumed_anyway(resume))

    def save_settings(path: Path) -> None:
        run_folder.save_config(path, config, prepared.dataset.table, versions())
        if inexact:
            run_folder.record_resumed_anyway(path)

    def write(path: Path) -> bool:
        return _finish(path, config, prepared, result, mesh, plots=plots, resumed=resume is not None)

    if first and resume is None:
        run_folder.create(path, save_settings)
    networks = "" if config.members is None else f"{config.members} networks, strategy {config.strategy}; "
    say(f"{networks}the run folder is [bold]{escape(str(path))}[/]")
    tested = True
    with explain("train", path, save_settings):
        if anyway:
            record_anyway(path)
        result = fit(config, prepared, mesh, path=path, resume="anyway" if anyway else resume is not None)
        if first:
            path, tested = write_results(path, write, save_settings)
    say(f"written to [bold]{escape(str(path))}[/] after {time.perf_counter() - began:.1f} s; see {run_folder.REPORT}")
    if not tested:
        raise typer.Exit(1)


def _resumed_config(path: Path, out: Path | None, config: Config, option_names: set[str]) -> tuple[Config, Table]:
    """Return the settings and table of an unfinished run. The command line may change --save-every and --keep."""
    saved, table = run_folder.load_config(path)
    options = {name: value for name, value in asdict(config).items() if name in option_names}
    changeable = {name: options.pop(name) for name in ("save_every", "keep") if name in options}
    check_resume(path, out, saved=asdict(saved), options=options, finished=run_folder.is_finished(path))
    return replace(saved, **changeable), table


def _choose_group(config: Config, prepared: Prepared, mesh: Mesh | None) -> Config:
    """Set the group size to the largest that fits into memory, unless all members fit."""
    if config.members is None or config.group is not None:
        return config
    group = group_that_fits(prepared.run, prepared.training, config.members, strategy=config.strategy, mesh=mesh)
    if group is not None:
        say(f"{config.members} networks do not fit into memory; they are trained in groups of {group}")
    return replace(config, group=group)


def _finish(
    path: Path,
    config: Config,
    prepared: Prepared,
    result: Result,
    mesh: Mesh | None,
    *,
    plots: bool,
    resumed: bool,
) -> bool:
    """Test the network, print the scores, and write the results, ending with the receipt, which marks the run as done.

    Returns:
      True if there is a network to test.
    """
    outcome = evaluate(config, prepared, result)
    weights_file.save_weights(path / run_folder.WEIGHTS, outcome.params, outcome.state)
    history = [in_target_units(record, prepared.dataset.table.target_std) for record in result.history]
    ended = result.stopped | (result.diverged >= 0)
    write_records(path / run_folder.METRICS, history if config.members is None else split_members(history, ended))
    summary = _summary(config, prepared, result, outcome)
    write_json(path / run_folder.RESULT, summary)
    if outcome.scores is None:
        report.print_divergence(path, result)
    else:
        report.print_early_stopping(result, config)
        rows = None if prepared.held_out is None else len(prepared.held_out.x)
        if advice := describe_convergence(result.history, keeps_best=config.patience is not None, rows=rows):
            note(advice)
    report.print_scores(outcome, prepared)
    report.print_seconds(result, resumed=resumed)
    subject = pictures.Subject(config, prepared, outcome, history, summary)
    images = pictures.draw(path, subject) if plots else {}
    receipt = make_receipt(
        config,
        prepared,
        outcome,
        losses=result.losses,
        mesh=mesh,
        resumed_anyway=run_folder.resumed_anyway(path),
    )
    write_report(path, subject, images, receipt["weights"])
    run_folder.save_receipt(path, receipt)
    return outcome.scores is not None


def _summary(config: Config, prepared: Prepared, result: Result, outcome: Outcome) -> dict[str, Any]:
    """Return the content of result.json."""
    early_stopping, dataset = config.patience is not None, prepared.dataset
    summary: dict[str, Any] = {"test": outcome.scores}
    summary["baseline"] = baseline(dataset.table, prepared.training, dataset.test).scores
    if outcome.scores is not None and dataset.table.task == "classification":
        scores = class_scores(dataset.table, outcome.prediction, dataset.test)
        summary |= {"recall": scores.recall, "balanced_accuracy": scores.balanced_accuracy, "auc": scores.auc}
    if outcome.member_scores is None:
        summary |= _ending(result, (), early_stopping=early_stopping)
    else:
        summary |= {"uncertainty": outcome.uncertainty, "left_out": outcome.left_out}
        summary["members"] = [
            scores | _ending(result, member, early_stopping=early_stopping)
            for member, scores in enumerate(outcome.member_scores)
        ]
    return summary | {"steps": int(np.asarray(result.ts.step).max()), "seconds": result.seconds._asdict()}


def _ending(result: Result, member: int | tuple[()], *, early_stopping: bool) -> dict[str, Any]:
    """Return the step in which a network diverged and, with early stopping, its best step and whether it stopped."""
    step = int(result.diverged[member])
    ending: dict[str, Any] = {"diverged": None if step < 0 else step}
    if early_stopping and result.best is not None:
        best_step = int(np.asarray(result.best.step)[member])
        ending |= {"best_step": best_step, "stopped": bool(result.stopped[member])}
    return ending
