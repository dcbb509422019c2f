"""`nnjax train`: from a data set to a run folder, for one network or many."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer
from rich.markup import escape

from nnjax import nn, train
from nnjax.cli import options as o
from nnjax.cli import receipt, report, run_folder, shared
from nnjax.cli.config import Config, check
from nnjax.cli.prepare import Prepared, check_new, data_folder, place, prepare
from nnjax.cli.shared import say
from nnjax.storage.atomic_write import write_json, write_records
from nnjax.train.job import Result
from nnjax.train.plan import group_that_fits
from nnjax.train.resume import Resume

D = o.DEFAULTS


def train_command(
    ctx: typer.Context,
    name: o.Name = None,
    target: o.Target = None,
    task: o.Task = None,
    data_dir: o.DataDir = None,
    test_share: o.TestShare = D.test_share,
    validation: o.Validation = D.validation,
    width: Annotated[int, o.option("Width of the hidden layers.", o.NET)] = D.width,
    depth: o.Depth = D.depth,
    activation: o.Activation = D.activation,
    norm: o.Norm = D.norm,
    dropout: Annotated[float, o.option("Probability of dropping a hidden value.", o.NET)] = D.dropout,
    skip: o.Skip = D.skip,
    optimizer: o.Optimizer = D.optimizer,
    learning_rate: Annotated[float | None, o.option(f"Highest rate; by default {o.RATES}.", o.TRAINING)] = None,
    schedule: o.Schedule = D.schedule,
    weight_decay: Annotated[float | None, o.option("For adamw and lion; 0.01 by default.", o.TRAINING)] = None,
    clip: o.Clip = None,
    label_smoothing: Annotated[
        float, o.option("Share of each label that is spread over all classes.", o.TRAINING)
    ] = D.label_smoothing,
    batch_size: o.BatchSize = D.batch_size,
    epochs: o.Epochs = D.epochs,
    patience: o.Patience = None,
    seed: o.Seed = D.seed,
    members: Annotated[
        int | None, o.option("Train an ensemble of so many networks; their predictions are averaged.", o.MANY)
    ] = None,
    strategy: o.Strategy = D.strategy,
    group: o.Group = None,
    out: Annotated[Path | None, o.option("Folder for the run; by default runs/DATA-DATE-TIME.", o.OUTPUT)] = None,
    resume: o.Resume = None,
    anyway: o.Anyway = False,
    save_every: Annotated[float, o.option("Seconds between checkpoints.", o.OUTPUT)] = D.save_every,
    keep: Annotated[int, o.option("Checkpoints that are kept, besides the best.", o.OUTPUT)] = D.keep,
    plots: o.Plots = True,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it would take, and end.", rich_help_panel=o.OUTPUT)
    ] = False,
    coordinator: o.Coordinator = None,
    processes: o.Processes = None,
    process_id: o.ProcessId = None,
    cluster: o.Cluster = False,
) -> None:
    """Train a network, or many, and write a run folder: settings, metrics per epoch, weights, pictures.

    For example: nnjax train digits, or nnjax train wine.csv --target cultivar

    Exit code 1 where the training diverged, so that there is no network to
    test.

    An interrupted run goes on: nnjax train --resume runs/digits-20260101-120000
    """
    began = time.perf_counter()
    config = Config(
        place(name or ""), data_folder(name or "", data_dir), target, task, test_share, validation, width, depth,
        activation, norm, dropout, skip, optimizer, learning_rate, schedule, weight_decay, clip, batch_size, epochs,
        seed, label_smoothing, members, strategy, group, patience, save_every, keep,
    )  # fmt: skip
    if resume is None:
        check_new("train", name, anyway, shared.given(ctx))
        check(config)
    else:
        config = _resumed(resume, out, config, shared.given(ctx))
    shared.join(coordinator, processes, process_id, cluster, folder=resume or out)
    shared.use_cores(shared.together(config, config.members) or 1)
    mesh = _mesh(config)
    shared.introduce(mesh)
    prepared = prepare(config)
    if jax.process_index() == 0:
        report.print_network(nn.as_layer(prepared.run.net), prepared.training)
    if plan:
        say(escape(str(train.plan(prepared.run, prepared.training, members=config.members or 1, mesh=mesh))))
        return
    if resume is None:
        config = _in_groups(config, prepared)
    path = _folder(config, prepared, out, resume)
    if config.members is not None:
        say(f"{config.members} networks, strategy {config.strategy}; the run folder is [bold]{escape(str(path))}[/]")
    else:
        say(f"the run folder is [bold]{escape(str(path))}[/]")
    with shared.explained("train", path):
        result = fit(config, prepared, path / run_folder.CHECKPOINTS, "anyway" if anyway else resume is not None)
        first = jax.process_index() == 0
        begun = began if resume is None else None
        tested = finish(path, config, prepared, result, plots=plots, began=begun) if first else True
    say(f"written to [bold]{escape(str(path))}[/] after {time.perf_counter() - began:.1f} s")
    if not tested:
        raise typer.Exit(1)


def _in_groups(config: Config, prepared: Prepared) -> Config:
    """The settings, with the largest group that fits into memory where not all members do."""
    if config.members is None or config.group is not None:
        return config
    mesh = _mesh(config)
    group = group_that_fits(prepared.run, prepared.training, config.members, config.strategy, mesh)
    if group is not None:
        say(f"{config.members} networks do not fit into memory; they are trained in groups of {group}")
    return replace(config, group=group)


def _folder(config: Config, prepared: Prepared, out: Path | None, resume: Path | None) -> Path:
    """The run's folder, made where it is a new run. Of several processes the first makes it."""
    path = resume or out or Path("runs") / f"{Path(config.data).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    if jax.process_index() == 0 and resume is None:
        run_folder.save_config(run_folder.create(path), config, prepared.dataset.table, shared.versions())
    return path


def fit(config: Config, prepared: Prepared, out: Path | None, resume: Resume) -> Result:
    """The run that the settings describe, with its checkpoints in `out`."""
    noting = [shared.note_anyway(out.parent)] if out is not None and resume == "anyway" else []
    result = train.fit(
        prepared.run,
        prepared.training,
        epochs=config.epochs,
        key=jax.random.key(config.seed),
        members=config.members,
        strategy=config.strategy,
        mesh=_mesh(config),
        group=config.group,
        validation=prepared.held_out,
        patience=config.patience,
        out=out,
        resume=resume,
        save_every=config.save_every,
        keep=config.keep,
        callbacks=[shared.line_per_tenth(config.epochs), *noting],
    )
    for note in noting:  # where no step was left
        note(None, None)
    return result


def finish(path: Path, config: Config, prepared: Prepared, result: Result, *, plots: bool, began: float | None) -> bool:
    """Test the network and write all that is left to write, the receipt last: with it the run is finished.

    Returns:
      Whether there is a network to test.
    """
    dataset, table = prepared.dataset, prepared.dataset.table
    params, state = shared.kept_network(result, config)
    run_folder.save_weights(path / run_folder.WEIGHTS, params, state)
    outcome = report.test(prepared.run, params, state, shared.lost(result, config), dataset)
    history = [shared.in_units(record, table.target_std) for record in result.history]
    several = config.members is not None
    ended = result.stopped | (result.diverged >= 0)
    write_records(path / run_folder.METRICS, report.by_member(history, ended) if several else history)
    seconds = result.seconds._asdict()
    content: dict[str, Any] = {"test": outcome.scores}
    if outcome.members is not None:
        each = _members(outcome.members, result, config)
        content |= {"uncertainty": outcome.parts, "left_out": outcome.left_out, "members": each}
    else:
        content["diverged"] = _diverged(result, ())
        content |= {} if config.patience is None else _best(result, ())
    steps = int(np.max(result.ts.step))
    write_json(path / run_folder.RESULT, content | {"steps": steps, "seconds": seconds})
    if outcome.scores is None:
        _print_lost(path, result)
    else:
        _print_stops(result, config)
    report.print_scores(outcome, table)
    _print_seconds(result, resumed=began is None)
    if plots:
        report.draw(path, outcome, dataset, report.means(history), config)
    made = receipt.make(
        config,
        params=params,
        state=state,
        data=(prepared.training, prepared.held_out, dataset.test),
        losses=result.losses,
        scores=outcome.scores,
        devices=1 if (mesh := _mesh(config)) is None else mesh.size,
        resumed_anyway=run_folder.resumed_anyway(path),
    )
    write_json(path / run_folder.RECEIPT, made)
    return outcome.scores is not None


def _resumed(path: Path, out: Path | None, config: Config, given: set[str]) -> Config:
    """The settings of a run that is not finished."""
    if out is not None:
        raise ValueError("--resume names the folder; leave --out out")
    saved, _ = run_folder.load_config(path)
    free: dict[str, Any] = {name: getattr(config, name) for name in ("save_every", "keep") if name in given}
    names = [name for name in asdict(config) if name in given - free.keys()]
    shared.check_same(path, asdict(saved), asdict(config), names)
    if run_folder.finished(path):
        raise ValueError(f"{path} is finished; there is nothing to resume")
    config = replace(saved, **free)
    check(config)
    return config


def _mesh(config: Config) -> Any:
    return shared.mesh_for(shared.together(config, config.members))


def _best(result: Result, member: Any) -> dict[str, Any]:
    """Of what step the network is that is kept with patience."""
    assert result.best is not None
    return {"best_step": int(np.asarray(result.best.step)[member]), "stopped": bool(result.stopped[member])}


def _diverged(result: Result, member: Any) -> int | None:
    """The step whose loss was not finite."""
    step = int(result.diverged[member])
    return None if step < 0 else step


def _members(scores: list[dict[str, float]], result: Result, config: Config) -> list[dict[str, Any]]:
    """A record for each member."""
    rows: list[dict[str, Any]] = []
    for member, own in enumerate(scores):
        best: dict[str, Any] = {} if config.patience is None else _best(result, member)
        rows.append({**own, **best, "diverged": _diverged(result, member)})
    return rows


def _print_lost(path: Path, result: Result) -> None:
    """Where there is no network to test: why, and what may help."""
    who = "the run" if result.diverged.ndim == 0 else f"all {len(result.diverged)} members"
    when = f" in step {result.diverged}" if result.diverged.ndim == 0 and result.diverged >= 0 else ""
    say(
        f"[bold red]{who} diverged[/]{when}: there is no network to test. A smaller --learning-rate or --clip 1 may "
        f"help; nnjax replay {escape(shared.quoted(path))} finds where it began"
    )


def _print_stops(result: Result, config: Config) -> None:
    """What early stopping did."""
    if config.patience is None or result.best is None:
        return
    epoch_of = {record["step"]: record["epoch"] for record in result.history}
    epochs = np.array([epoch_of.get(int(step), 0) for step in np.atleast_1d(result.best.step)])
    stopped = np.atleast_1d(result.stopped)
    if config.members is None:
        did = "stopped early" if stopped[0] else "not stopped early"
        did = did if result.diverged < 0 else f"diverged in step {result.diverged}"
        say(f"{did}; the network of epoch {epochs[0]:.4g}, at its lowest validation loss, is tested and saved")
        return
    span = f"{epochs.min():.4g}" + (f" … {epochs.max():.4g}" if np.ptp(epochs) else "")
    say(
        f"{stopped.sum()} of {len(stopped)} networks stopped early; each is tested and saved as it was at its lowest "
        f"validation loss, in epoch {span}"
    )


def _print_seconds(result: Result, *, resumed: bool) -> None:
    seconds = result.seconds
    steps = int(np.sum(result.ts.step))
    rate = f"{steps:,} steps" + ("" if resumed else f", {steps / max(seconds.train, 1e-9):,.0f} per second")
    since = " since it was resumed" if resumed else ""
    say(
        f"compile {seconds.compile:.2f} s, train {seconds.train:.2f} s ({rate}), "
        f"validate {seconds.validate:.2f} s{since}"
    )
