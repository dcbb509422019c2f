"""`nnjax predict`: predict new rows with the network or the ensemble of a run."""

from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import typer
from rich.markup import escape

from nnjax import nn
from nnjax.cli import evaluation, run_folder
from nnjax.cli import options as o
from nnjax.cli.config import Config, make_run
from nnjax.cli.console import say
from nnjax.cli.devices import keep_programs
from nnjax.cli.new_rows import features, print_scores, read_rows
from nnjax.cli.prediction_file import PREDICTIONS, check_output, columns_of, write
from nnjax.cli.prepare import separator_of, split_names
from nnjax.data._problems import line_numbers
from nnjax.data.table import Table


def predict_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.", parser=o.path)],
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
        Literal[".", ","] | None, typer.Option(help="Decimal sign of FILE. Default: for each column, as in training.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse missing values and categories that did not occur in training.")
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

    For example: nnjax predict runs/wine-20260101-120000 new.csv --keep id
    """
    keep_programs()
    config, table = run_folder.load_config(run)
    out = out or run / PREDICTIONS
    check_output(out, run, (file, Path(config.data)))
    left_out = _left_out(run, config)
    run_folder.check_vouched(run, (run_folder.CONFIG, run_folder.TABLE, run_folder.RESULT, run_folder.WEIGHTS))
    separator = separator_of(sep or config.sep)
    raw = read_rows(file, table, split_names(keep), separator=separator, decimal=decimal)
    x = features(file, raw, table, strict=strict)
    outputs = np.delete(_predict(run, config, table, x), left_out, axis=0)
    prediction, parts = (outputs[0], {}) if config.members is None else evaluation.average(jnp.asarray(outputs), table)
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
    print_scores(raw, table, prediction)


def _left_out(path: Path, config: Config) -> list[int]:
    """Return the members that diverged and are not averaged.

    Raises:
      FileNotFoundError: if the run is not finished.
      ValueError: if all members diverged or the file is damaged.
    """
    result = run_folder.load_result(path, config)
    if result["test"] is None:
        who = "its training" if config.members is None else "the training of all its members"
        raise ValueError(f"{path} cannot predict, because {who} diverged; train with a smaller --learning-rate")
    return result.get("left_out", [])


def _predict(path: Path, config: Config, table: Table, x: np.ndarray) -> np.ndarray:
    """Return the outputs of each member as an array (members, rows, outputs)."""
    run = make_run(config, table.task, table.outputs, n=1)
    net = nn.as_layer(run.net)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, x.shape[1]), x.dtype))
    if config.members is not None:
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct((config.members, *a.shape), a.dtype), shapes)
    params, state = run_folder.load_weights(path / run_folder.WEIGHTS, *shapes)
    return evaluation.predict(run, params, state, x, members=config.members)
