"""`nnjax replay`: repeat a step of a run, and find where a NaN or an infinity arises in it."""

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


def replay_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, finished or not.", parser=o.path)],
    step: Annotated[
        int | None,
        typer.Option(help="Step to repeat, counted from 0. Default: the first that produces a NaN or an infinity."),
    ] = None,
    member: Annotated[
        int | None, typer.Option(help="Member of an ensemble, counted from 0. Default: the first that diverges.")
    ] = None,
) -> None:
    """Repeat a step one operation at a time, and print the first one that produces a NaN or an infinity.

    The output names the step, the member, the layer (or the loss, or the
    update), the operation, and the rows of the file; for a named data set, the
    rows of its training part.

    The exit code is 0 if everything is finite, 1 if not.

    For example: nnjax replay runs/digits-20260101-120000 --step 100
    """
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
        say("everything is finite to the end of the run")
        return
    replay = replay._replace(rows=prepared.rows[replay.rows])
    say(escape(replay.describe(describe_rows(config.data))))
    if replay.origin is not None:
        raise typer.Exit(1)
