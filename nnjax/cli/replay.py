"""`nnjax replay`: a step of a run again, and where in it a NaN or an infinity arose."""

from pathlib import Path
from typing import Annotated

import jax
import typer
from rich.markup import escape

from nnjax import train
from nnjax.cli import shared
from nnjax.cli.config import check
from nnjax.cli.prepare import of_what, prepare
from nnjax.cli.shared import say


def replay_command(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, finished or not.")],
    step: Annotated[
        int | None, typer.Option(help="Which step, from 0; by default the first after which something is not finite.")
    ] = None,
    member: Annotated[int | None, typer.Option(help="Which network of an ensemble; by default the first.")] = None,
) -> None:
    """Run a step again, one primitive at a time, and name the one that made a NaN or an infinity of finite numbers.

    It says the step, the network, the layer (or the loss, or the update), the primitive, and the rows of the file (of a
    named set, of its training part). Exit code 0 where everything is finite, 1 where something is not.

    For example: nnjax replay runs/digits-20260101-120000 --step 100
    """
    config, _ = run_folder.load_config(run_folder)
    check(config)
    shared.use_cores(shared.together(config, config.members) or 1)
    mesh = shared.mesh_for(shared.together(config, config.members))
    shared.introduce(mesh)
    prepared = prepare(config)
    found = train.replay(
        prepared.run,
        prepared.training,
        epochs=config.epochs,
        key=jax.random.key(config.seed),
        members=config.members,
        strategy=config.strategy,
        mesh=mesh,
        group=config.group,
        step=step,
        member=member,
        out=run_folder / run_folder.CHECKPOINTS,
    )
    if found is None:
        say("everything is finite to the end of the run")
        return
    found = found._replace(rows=prepared.rows[found.rows])
    say(escape(found.words(of_what(config.data))))
    if found.found is not None:
        raise typer.Exit(1)
