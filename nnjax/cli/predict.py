"""`nnjax predict`: predictions of a run's network, or of its ensemble, for new rows."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import typer
from rich.markup import escape

from nnjax import checks, nn
from nnjax.cli import evaluation, run_folder
from nnjax.cli import options as o
from nnjax.cli.config import Config, make_run
from nnjax.cli.console import say
from nnjax.cli.devices import keep_programs
from nnjax.data._csv import MISSING
from nnjax.data.table import Table, read_table
from nnjax.storage.atomic_write import write_records

PREDICTIONS = "predictions.csv"
RESERVED = (run_folder.RECEIPT, run_folder.SWEEP, run_folder.ROWS)  # their names say what a folder holds


def predict_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.", parser=o.path)],
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="CSV or NPZ file with the same features as in training.", parser=o.path),
    ],
    out: Annotated[
        Path | None, typer.Option(help="CSV file to write. Default: RUN/predictions.csv.", parser=o.path)
    ] = None,
) -> None:
    """Predict the target for each row of FILE; for classification, also the probability of each class.

    An ensemble averages the predictions of its members. One more column then
    measures their disagreement: epistemic, the mutual information of class and
    member in nats, or sd, the standard deviation of the members' predictions.

    For example: nnjax predict runs/wine-20260101-120000 new.csv
    """
    keep_programs()
    config, table = run_folder.load_config(run)
    out = out or run / PREDICTIONS
    _check_output(out, run, (file, Path(config.data)))
    left_out = _left_out(run, config)
    run_folder.check_vouched(run, (run_folder.CONFIG, run_folder.TABLE, run_folder.RESULT, run_folder.WEIGHTS))
    x = _read_features(file, table)
    outputs = np.delete(_predict(run, config, table, x), left_out, axis=0)
    prediction, parts = (outputs[0], {}) if config.members is None else evaluation.average(jnp.asarray(outputs), table)
    columns = _columns(prediction, table, {name: parts[name] for name in ("epistemic", "sd") if name in parts})
    numbers = [prediction, *(values[:, None] for values in columns.values() if isinstance(values, np.ndarray))]
    not_finite = np.flatnonzero(~np.isfinite(np.concatenate(numbers, axis=1)).all(1))
    if not_finite.size:
        raise ValueError(
            f"{run}: the predictions for {len(not_finite)} of {len(x)} rows of {file} are not finite, the first for "
            f"row {not_finite[0]}: the training diverged, or the numbers in these rows are too large"
        )
    _write(out, columns, table)
    say(f"{len(x):,} predictions written to [bold]{escape(str(out))}[/]")


def _left_out(path: Path, config: Config) -> list[int]:
    """Return the members that diverged; they are not averaged.

    Raises:
      FileNotFoundError: if the run is not finished.
      ValueError: if all members diverged or the file is damaged.
    """
    result = run_folder.load_result(path, config)
    if result["test"] is None:
        who = "its training" if config.members is None else "the training of all its members"
        raise ValueError(f"{path} cannot predict, because {who} diverged; train with a smaller --learning-rate")
    return result.get("left_out", [])


def _read_features(file: Path, table: Table) -> np.ndarray:
    """Return the features (rows, features) in a file, standardised as in training."""
    frame = read_table(file, table=table)
    if any(len(values) == 0 for values in frame.values()):
        raise ValueError(f"{file} has no rows")
    width = len(frame) - (table.target in frame)
    if file.suffix.lower() == ".npz" and width != len(table.columns):
        raise ValueError(f"{file}: x has {width} features, but the run was trained on {len(table.columns)}")
    with checks.located(f"in {file}"):
        return table.features(frame)


def _predict(path: Path, config: Config, table: Table, x: np.ndarray) -> np.ndarray:
    """Return the outputs of each member, (members, rows, outputs)."""
    run = make_run(config, table.task, len(table.classes) or 1, n=1)
    net = nn.as_layer(run.net)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, x.shape[1]), x.dtype))
    if config.members is not None:
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct((config.members, *a.shape), a.dtype), shapes)
    params, state = run_folder.load_weights(path / run_folder.WEIGHTS, *shapes)
    return evaluation.predict(run, params, state, x, members=config.members)


def _columns(prediction: np.ndarray, table: Table, spread: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the columns of the CSV file: the target, the probability of each class, the disagreement of the members.

    A name that the table already has gets an underscore, because a second column of this name would replace the first.
    """
    if table.task == "regression":
        columns: dict[str, Any] = {table.target: prediction[:, 0].astype(float) * table.target_std + table.target_mean}
        more = dict(spread)
    else:
        probabilities = np.asarray(nn.softmax(jnp.asarray(prediction))).astype(float)
        columns = {table.target: [table.classes[i] for i in probabilities.argmax(1)]}
        more = {f"p({name})": probabilities[:, i] for i, name in enumerate(table.classes)} | dict(spread)
    taken = {table.target, *(column.name for column in table.columns)}
    for name, values in more.items():
        free = name
        while free in taken:
            free += "_"
        taken.add(free)
        columns[free] = values
    return columns


def _write(out: Path, columns: Mapping[str, Any], table: Table) -> None:
    """Write the columns as CSV; texts are in quotes if a class has a name that means missing, such as NA."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*(list(v) for v in columns.values()), strict=True)]
    write_records(out, rows, quote_texts=not MISSING.isdisjoint(table.classes))


def _check_output(out: Path, run: Path, inputs: Iterable[Path]) -> None:
    """Check that writing to `out` replaces neither an input nor a file of the run, except for older predictions.

    Raises:
      FileExistsError: if it would, directly or through a link, or if `out` is not a regular file.
    """
    if out.exists() and not out.is_file():
        raise FileExistsError(f"--out {out} is not a regular file; choose another name")
    own = ({run / name for name in RESERVED} | set(run.rglob("*"))) - {run / PREDICTIONS}
    for path in (*filter(Path.is_file, inputs), *own):  # the data of training may be a name such as digits
        if _same(out, path):
            raise FileExistsError(f"--out {out} would overwrite {path}; choose another name")


def _same(a: Path, b: Path) -> bool:
    """Return True if two paths lead to the same file, or will when it is written."""
    with suppress(OSError):
        return a.samefile(b)
    return os.path.realpath(a) == os.path.realpath(b)  # Path.resolve raises for links in a circle
