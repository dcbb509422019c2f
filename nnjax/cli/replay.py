"""`nnjax replay`: repeat a step of a run, and find the origin of a NaN or an infinity."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from nnjax import train
from nnjax.cli import options as o
from nnjax.cli import run_folder
from nnjax.cli.config import check_settings
from nnjax.cli.console import say
from nnjax.cli.devices import start_devices
from nnjax.cli.fitting import run_arguments
from nnjax.cli.prepare import describe_rows, prepare
from nnjax.cli.search_verify import open_search, replay_search, row_of, settings_of, trial_problems


def replay_command(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of a run, finished or not, or of a finished search.", parser=o.path),
    ],
    step: Annotated[
        int | None,
        typer.Option(help="Step to repeat, counted from 0. Default: the first that produces a NaN or an infinity."),
    ] = None,
    member: Annotated[
        int | None, typer.Option(help="Member of an ensemble, counted from 0. Default: the first that diverges.")
    ] = None,
    trial: Annotated[
        int | None, typer.Option(help="Trial of a search to train again. Default: the best one.", min=0)
    ] = None,
) -> None:
    """Repeat a step one operation at a time, and print the first operation that produces a NaN or an infinity.

    The output names the step, the member, the layer (or the loss, or the
    update), the operation, and the rows of the file; for a named data set, the
    rows of its training part.

    For a search, a trial is trained again to the last rung that it reached, and
    its scores are compared with search.csv.

    The exit code is 0 if everything is finite and the scores agree, 1 if not.

    For example: nnjax replay runs/digits-20260101-120000 --step 100
    """
    if (run / run_folder.SEARCH).is_file():
        _replay_trial(run, trial, step, member)
        return
    if trial is not None:
        raise ValueError("--trial applies only to a search; omit it")
    config, table = run_folder.load_config(run)
    check_settings(config)
    mesh = start_devices(config.members, config.group)
    prepared = prepare(config, table)
    config = prepared.config
    replay = train.replay(
        prepared.run,
        prepared.training,
        **run_arguments(config, mesh),
        members=config.members,
        step=step,
        member=member,
        out=run / run_folder.CHECKPOINTS,
    )
    if replay is None:
        say("all values are finite until the end of the run")
        return
    replay = replay._replace(rows=prepared.rows[replay.rows])
    say(escape(replay.describe(describe_rows(config.data))))
    if replay.origin is not None:
        raise typer.Exit(1)


def _replay_trial(path: Path, trial: int | None, step: int | None, member: int | None) -> None:
    """Train a trial of a search again, and print its scores and the origin of a divergence."""
    for name, value in (("--step", step), ("--member", member)):
        if value is not None:
            raise ValueError(f"{name} applies only to a run; use --trial for a search")
    search = open_search(path)
    if trial is None:
        trial = search.receipt["best"]
    if trial is None:
        raise ValueError("there is no best trial, because all trials diverged; choose one with --trial")
    row = row_of(search, trial)
    if search.inexactness:
        say(escape(search.inexactness))
    replayed = replay_search(search, trial)
    problems, agreement = trial_problems(search, replayed, trial)
    say(escape(f"trial {trial}, {row['status']}: {settings_of(row, search.setup.request.space)}"))
    for epochs, score in replayed.scores.items():
        say(f"score after {epochs:g} {'epoch' if epochs == 1 else 'epochs'}: {score:.6g}")
    if replayed.origin is not None:
        origin = replayed.origin._replace(rows=search.setup.prepared.rows[replayed.origin.rows])
        say(escape(origin.describe(describe_rows(search.setup.request.config.data))))
    for problem in problems:
        say(f"[bold red]differs[/] {escape(problem)}")
    if not problems and replayed.scores:
        say(f"trained again, trial {trial} has {agreement}")
    if problems or replayed.origin is not None:
        raise typer.Exit(1)
