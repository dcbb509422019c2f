"""`nnjax plot`: redraw the pictures and the report of a run from its folder."""

from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
import typer
from rich.markup import escape

from nnjax.cli import evaluation, run_folder, weights_file
from nnjax.cli import options as o
from nnjax.cli.config import Config
from nnjax.cli.console import say
from nnjax.cli.devices import keep_programs
from nnjax.cli.evaluation import Outcome
from nnjax.cli.history import read_history, read_number
from nnjax.cli.html_report import write_report
from nnjax.cli.model import weight_shapes
from nnjax.cli.pictures import Subject, draw
from nnjax.cli.prepare import Prepared, prepare
from nnjax.cli.receipt import data_problem
from nnjax.cli.search_folder import load_search
from nnjax.cli.search_receipt import load_receipt
from nnjax.cli.search_report import draw_search
from nnjax.cli.sweep import redraw_sweep


def plot_command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a finished run, sweep or search.", parser=o.path)
    ],
) -> None:
    """Redraw all pictures of a run, and write report.html, a page with all pictures.

    For a sweep or a search, these are the pictures of its hyper-parameters.
    The weights are read from the folder and the data from their file; nothing is trained.

    For example: nnjax plot runs/digits-20260101-120000
    """
    keep_programs()
    if (run / run_folder.SWEEP).is_file():
        redraw_sweep(run)
        say(f"pictures and {run_folder.REPORT} written to [bold]{escape(str(run))}[/]")
        return
    if (run / run_folder.SEARCH).is_file():
        say(f"{', '.join(_redraw_search(run))} written to [bold]{escape(str(run))}[/]")
        return
    config, table = run_folder.load_config(run)
    summary = run_folder.load_result(run, config)
    run_folder.check_files(run, (run_folder.METRICS, run_folder.RESULT, run_folder.WEIGHTS))
    receipt = run_folder.load_receipt(run)
    prepared = prepare(config, table)
    if receipt is not None and (problem := data_problem(prepared, receipt, "run")):
        raise ValueError(f"{run}: {problem}; restore the file, or train again")
    outcome = _outcome(run, config, prepared, summary)
    history = read_history(run / run_folder.METRICS)
    subject = Subject(prepared.config, prepared, outcome, history, summary)
    pictures = draw(run, subject)
    write_report(run, subject, pictures, "unknown" if receipt is None else receipt["weights"])
    if receipt is not None:
        run_folder.update_report_checksum(run, receipt)
    names = [f"{name}.png" for name in pictures] + [run_folder.REPORT]
    say(f"{', '.join(names)} written to [bold]{escape(str(run))}[/]")


def _redraw_search(path: Path) -> list[str]:
    """Redraw the pictures of a finished search, rewrite its report, and return the names of the files.

    Raises:
      ValueError: if a file has changed since the search.
    """
    names = draw_search(path, load_search(path))
    run_folder.update_report_checksum(path, load_receipt(path))
    return names


def _outcome(path: Path, config: Config, prepared: Prepared, summary: Any) -> Outcome:
    """Return the saved network or ensemble with its predictions for the test data and its recorded scores."""
    table, x = prepared.dataset.table, prepared.dataset.test.x
    shapes = weight_shapes(prepared.run, x, config.members)
    params, state = weights_file.load_weights(path / run_folder.WEIGHTS, *shapes)
    outputs = evaluation.predict(prepared.run, params, state, x, members=config.members)
    scores = None if summary["test"] is None else {name: read_number(value) for name, value in summary["test"].items()}
    if config.members is None:
        return Outcome(params, state, scores, outputs[0])
    names = scores or {}
    members = [{name: read_number(member.get(name)) for name in names} for member in summary["members"]]
    left_out = summary["left_out"]
    outcome = Outcome(params, state, scores, outputs[0], member_scores=members, left_out=left_out)
    if scores is None:
        return outcome
    outputs = np.delete(outputs, left_out, axis=0)
    prediction, _ = evaluation.average(jnp.asarray(outputs), table)
    return outcome._replace(prediction=prediction, member_outputs=outputs, uncertainty=summary["uncertainty"])
