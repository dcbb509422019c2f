"""`nnjax verify`: train a run again, and see whether the same comes of it."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape

from nnjax.cli import receipt, report, run_folder, shared
from nnjax.cli.config import check
from nnjax.cli.prepare import prepare
from nnjax.cli.shared import say
from nnjax.cli.train import fit
from nnjax.storage import tensor_file
from nnjax.storage.checkpoint import digest
from nnjax.train.engine import fingerprint


def verify_command(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
) -> None:
    """Train a run again from its settings and its seed, and compare: bit for bit where the machine is the same.

    What bits depend on (device, cores, versions) is in the run's receipt.json.
    Where it differs here, the first losses and the test loss are held against
    the receipt instead, to a tolerance that is said. Exit code 0 if the run is
    verified, 1 if not.

    For example: nnjax verify runs/digits-20260101-120000
    """
    config, _ = run_folder.load_config(run_folder)
    made = _read_receipt(run_folder)
    check(config)
    shared.use_cores(shared.together(config, config.members) or 1)
    mesh = shared.mesh_for(shared.together(config, config.members))
    shared.introduce(mesh)
    problems = []
    if receipt.settings_digest(config) != made["settings"]:
        problems.append(f"{run_folder.CONFIG} was changed since the run: its settings are not the receipt's")
    saved, complaint = _weights(run_folder / run_folder.WEIGHTS)
    if complaint:
        problems.append(complaint)
    elif digest(saved) != made["weights"]:
        problems.append(f"{run_folder.WEIGHTS} was changed since the run: its SHA-256 is not the receipt's")
    prepared = prepare(config)
    data = (prepared.training, prepared.held_out, prepared.dataset.test)
    if digest(data) != made["data"]:
        problems.append("the data differ: they, or the way they are split, are not those of the run")
        _end(run_folder, problems, "")

    with shared.warnings_of(run_folder):
        result = fit(config, prepared, None, False)
    params, state = shared.kept_network(result, config)
    outcome = report.test(prepared.run, params, state, shared.lost(result, config), prepared.dataset)
    again = receipt.make(
        config,
        params=params,
        state=state,
        data=data,
        losses=result.losses,
        scores=outcome.scores,
        devices=1 if mesh is None else mesh.size,
        resumed_anyway=False,
    )
    other = fingerprint.differences(made["bits_depend_on"], again["bits_depend_on"])
    if other or made["resumed_anyway"]:
        why = "the run once went on with --anyway" if made["resumed_anyway"] else "here other things are in use"
        rows = f":\n{fingerprint.table(other)}" if other else ""
        say(f"the same bits cannot be expected, for {why}{escape(rows)}")
        problems += [f"{name}: {a:.6g} in the receipt, {b:.6g} now" for name, a, b in receipt.close(made, again)]
        _end(
            run_folder,
            problems,
            f"to a tolerance: the first {receipt.FIRST} losses agree to {receipt.LOSS_TOLERANCE:g}, "
            f"the test loss to {receipt.TEST_TOLERANCE:g} (relative)",
        )
    if again["weights"] != made["weights"]:
        problems.append("trained again, the weights are not those of the receipt")
    leaves, _ = tensor_file.named_leaves({"params": params, "state": state})
    for d in receipt.compare(saved, leaves) if saved else []:
        problems.append(
            f"{d.name}: {d.numbers:,} of {d.size:,} numbers differ from those trained again, by {d.largest:.3g} at most"
        )
    _end(run_folder, problems, f"bit for bit: parameters and state have the SHA-256 {made['weights'][:16]}…")


def _read_receipt(path: Path) -> receipt.Receipt:
    if not run_folder.finished(path):
        raise ValueError(
            f"{path} is not finished, it has no {run_folder.RECEIPT}; go on with: "
            f"nnjax train --resume {shared.quoted(path)}"
        )
    try:
        made = json.loads((path / run_folder.RECEIPT).read_text())
        for name in ("weights", "settings", "data", "first_losses", "test", "bits_depend_on", "resumed_anyway"):
            made[name]
        return made
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path / run_folder.RECEIPT} is damaged: {error!r}") from error


def _weights(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    """The leaves as they stand in the file, none where it cannot be read; and what is wrong with them."""
    try:
        return run_folder.read_weights(path)
    except ValueError as error:
        return {}, str(error)


def _end(path: Path, problems: list[str], how: str) -> Any:
    """The verdict, and the end of the command."""
    if not problems:
        say(f"[bold green]verified[/] {escape(str(path))} {how}")
        raise typer.Exit(0)
    say(f"[bold red]not verified[/] {escape(str(path))}")
    for problem in problems:
        say(f"  {escape(problem)}")
    raise typer.Exit(1)
