"""`nnjax verify`: train a run again, and compare the results."""

import math
from pathlib import Path
from typing import Annotated, NoReturn

import numpy as np
import typer
from rich.markup import escape

from nnjax.cli import options as o
from nnjax.cli import receipt, run_folder, weights_file
from nnjax.cli.config import check_settings
from nnjax.cli.console import quote, say
from nnjax.cli.devices import start_devices
from nnjax.cli.evaluation import evaluate
from nnjax.cli.fitting import fit
from nnjax.cli.messages import explain_divergence
from nnjax.cli.pictures import describe
from nnjax.cli.prepare import prepare
from nnjax.cli.search_verify import verify_search
from nnjax.storage import tensor_file
from nnjax.storage.atomic_write import write_file
from nnjax.train.engine.fingerprint import differences


def verify_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run or search.", parser=o.path)],
    plot: Annotated[
        Path | None,
        typer.Option(help="PNG file for a picture of the differences between both runs.", parser=o.path),
    ] = None,
) -> None:
    """Train a run again from its settings and its seed, and compare the weights bit for bit.

    The exact weights depend on the device, the number of cores and the
    versions of the libraries, which receipt.json records. If these have
    changed, only the first losses and the test loss are compared, within
    tolerances.

    For a search, the files and all decisions are checked, and the best trial is
    trained again.

    The exit code is 0 if the run is verified, 1 if not.

    For example: nnjax verify runs/digits-20260101-120000
    """
    if (run / run_folder.SEARCH).is_file():
        if plot is not None:
            raise ValueError("--plot applies only to a run, not to a search; omit it")
        verdict = verify_search(run)
        if verdict.reason:
            say(escape(verdict.reason))
        _end(run, verdict.problems, verdict.agreement)
    config, table = run_folder.read_config(run)
    saved = run_folder.load_receipt(run)
    if saved is None:
        raise ValueError(
            f"{run} is not finished, {run_folder.RECEIPT} is missing; continue with: nnjax train --resume {quote(run)}"
        )
    check_settings(config)
    if plot is not None:
        o.check_file("--plot", plot)
    mesh = start_devices(config.members, config.group)
    weights, damage = weights_file.read_weights(run / run_folder.WEIGHTS)
    names = (run_folder.CONFIG, *run_folder.RECEIPT_FILES)
    problems = run_folder.changes(run, names if damage is None else [n for n in names if n != run_folder.WEIGHTS])
    if damage is not None:
        problems.append(damage)
    prepared = prepare(config, table)
    config = prepared.config
    if problem := receipt.data_problem(prepared, saved, "run"):
        _end(run, [*problems, problem])

    with explain_divergence(run):
        result = fit(config, prepared, mesh)
    outcome = evaluate(config, prepared, result)
    repeated = receipt.make_receipt(config, prepared, outcome, losses=result.losses, mesh=mesh, resumed_anyway=False)
    leaves, _ = tensor_file.named_leaves({"params": outcome.params, "state": outcome.state})
    unequal = receipt.weight_differences(weights, leaves) if weights else []
    if plot is not None:
        largest = {d.name: d.largest for d in unequal}
        if repeated["weights"] != saved["weights"] and not largest:
            largest = {run_folder.WEIGHTS: math.nan}
        _draw(plot, saved, repeated, largest, describe(config, saved["test"]))
    changes = differences(saved["bits_depend_on"], repeated["bits_depend_on"])
    if reason := receipt.describe_inexactness(saved, changes, "run"):
        say(escape(reason))
        losses = receipt.loss_differences(saved, repeated)
        problems += [f"{name}: {a:.6g} in the receipt, {b:.6g} now" for name, a, b in losses]
        _end(
            run,
            problems,
            f"within tolerance: the first {receipt.FIRST} losses agree to {receipt.LOSS_TOLERANCE:g}, "
            f"the test loss to {receipt.TEST_TOLERANCE:g} (relative)",
        )
    if repeated["weights"] != saved["weights"]:
        problems.append("the weights of the repeated training differ from the receipt")
    for d in unequal:
        problems.append(
            f"{d.name}: {d.numbers:,} of {d.size:,} numbers differ from the repeated training, by up to {d.largest:.3g}"
        )
    _end(run, problems, f"bit for bit: parameters and state have the SHA-256 {saved['weights'][:16]}…")


def _draw(
    path: Path, saved: receipt.Receipt, repeated: receipt.Receipt, largest: dict[str, float], context: str
) -> None:
    """Draw the differences of the losses and weights between both runs, if these have the same number of losses."""
    from nnjax import plot

    first, now = (np.array(losses["first_losses"], float) for losses in (saved, repeated))
    if first.shape == now.shape and first.size:
        picture = plot.repetition(first, now, largest, tolerance=receipt.LOSS_TOLERANCE, context=context)
        write_file(path, plot.png(picture))


def _end(path: Path, problems: list[str], agreement: str = "") -> NoReturn:
    """Print the verdict, and end the command with its exit code."""
    if not problems:
        say(f"[bold green]verified[/] {escape(str(path))} {agreement}")
        raise typer.Exit(0)
    say(f"[bold red]not verified[/] {escape(str(path))}")
    for problem in problems:
        say(f"  {escape(problem)}")
    raise typer.Exit(1)
