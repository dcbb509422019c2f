"""`nnjax predict`: predict new rows with the network or the ensemble of a run or a search."""

from pathlib import Path
from typing import Annotated, Literal

import jax.numpy as jnp
import numpy as np
import typer
from rich.markup import escape

from nnjax.cli import evaluation, run_folder
from nnjax.cli import options as o
from nnjax.cli.console import say
from nnjax.cli.devices import keep_programs
from nnjax.cli.model import run_model
from nnjax.cli.new_rows import features, print_scores, read_rows
from nnjax.cli.prediction_file import PREDICTIONS, check_output, columns_of, is_same_file, write
from nnjax.cli.prepare import separator_of
from nnjax.cli.search_model import search_model
from nnjax.data._csv import split_names
from nnjax.data._load import NAMES
from nnjax.data._problems import line_numbers


def predict_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run or search.", parser=o.path)],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Table with the same features as in training: .csv, .tsv, .csv.gz, .tsv.gz, .parquet or .npz.",
            parser=o.path,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="CSV file to write. Default: RUN/predictions.csv.", parser=o.path)
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="Columns of FILE to write as well, such as an id, separated by commas.")
    ] = None,
    sep: Annotated[
        str | None, typer.Option(help="Separator of FILE, or tab, or space. Default: --sep of the run, else detected.")
    ] = None,
    decimal: Annotated[
        Literal[".", ","] | None,
        typer.Option(help="Decimal separator of FILE. Default: for each column, as in training."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse missing values and categories that did not occur in training.")
    ] = False,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="For a search: average its five best networks, instead of the best one.")
    ] = False,
) -> None:
    """Predict the target for each row of FILE; for classification, also the probability of each class.

    A category that did not occur in training is treated as a missing value.
    Missing values are filled with averages, or as chosen by --missing in
    training. The number of affected rows is printed. If FILE contains the
    target, the scores of the predictions are printed.

    An ensemble averages the predictions of its members. Further columns then
    measure their disagreement: epistemic, the mutual information of class and
    member in nats, or sd, the standard deviation of the members' predictions.

    A search predicts with the network of its best trial, or with --ensemble with
    the five networks that it selected on the validation data.

    For example: nnjax predict runs/wine-20260101-120000 new.csv --keep id
    """
    keep_programs()
    if str(file) in NAMES and not file.is_file():
        raise ValueError(
            f"predict needs a file of new rows, not the data set {str(file)!r}; the scores of its test rows are in "
            f"{run / run_folder.RESULT}"
        )
    is_search = (run / run_folder.SEARCH).is_file()
    if ensemble and not is_search:
        raise ValueError("--ensemble applies only to a search; the members of a run are always averaged")
    model = search_model(run, ensemble=ensemble) if is_search else run_model(run)
    table = model.table
    out = out or run / PREDICTIONS
    check_output(out, run, (file, Path(model.config.data)))
    o.check_file("--out", out)
    separator = separator_of(sep or model.config.sep)
    raw = read_rows(file, table, split_names(keep), separator=separator, decimal=decimal)
    x = features(file, raw, table, strict=strict)
    outputs = model.outputs(x)
    prediction, parts = evaluation.average(jnp.asarray(outputs), table) if model.average else (outputs[0], {})
    spread: dict[str, np.ndarray] = {name: parts[name] for name in ("epistemic", "sd") if name in parts}
    columns = columns_of(prediction, table, spread, raw.extra)
    numbers = [prediction, *(values.reshape(len(x), -1) for values in spread.values())]
    not_finite = np.flatnonzero(~np.isfinite(np.concatenate(numbers, axis=1)).all(1))
    if not_finite.size:
        raise ValueError(
            f"{run}: the predictions for {len(not_finite)} of {len(x)} rows of {file} are not finite, the first in "
            f"{line_numbers(raw.lines)(not_finite[0])}: the training diverged, or numbers in these rows are too large"
        )
    write(out, columns, table)
    say(f"{len(x):,} predictions written to [bold]{escape(str(out))}[/]")
    print_scores(raw, table, prediction, seen=is_same_file(file, Path(model.config.data)))
