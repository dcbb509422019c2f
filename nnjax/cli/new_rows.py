"""Read new rows from a file, report their missing or unknown values, and score the predictions."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from rich.markup import escape

from nnjax import checks
from nnjax.cli.baseline import class_scores
from nnjax.cli.console import note, say
from nnjax.cli.evaluation import target_scores
from nnjax.data import Data, TableError
from nnjax.data._frame import missing_rows
from nnjax.data._numbers import Decimal
from nnjax.data._problems import describe
from nnjax.data._read_table import RawTable, read_new_rows
from nnjax.data.table import Table


def read_rows(
    file: Path, table: Table, keep: Sequence[str], *, separator: str | None = None, decimal: Decimal | None = None
) -> RawTable:
    """Read the columns that the run needs, and further columns to keep, from a file.

    Args:
      file: the file of new rows.
      table: the encoding of the run.
      keep: names of the further columns.
      separator: the separator of a CSV file; None to detect it.
      decimal: the decimal separator of a CSV file; None means the decimal separator of each column in training.

    Raises:
      ValueError: if the file has no rows, or if the array x of an NPZ file has the wrong number of features.
    """
    raw = read_new_rows(file, table, keep=keep, separator=separator, decimal=decimal)
    if any(len(values) == 0 for values in raw.frame.values()):
        raise ValueError(f"{file} has no rows")
    width = len(raw.frame) - (table.target in raw.frame)
    if file.suffix.lower() == ".npz" and width != len(table.columns):
        raise ValueError(f"{file}: x has {width} features, but the run was trained on {len(table.columns)}")
    return raw


def features(file: Path, raw: RawTable, table: Table, *, strict: bool) -> np.ndarray:
    """Return the features (rows, features), standardised as in training, and report missing or unknown values.

    Raises:
      ValueError: if numbers are infinite or too large, or if `strict` and values are missing or unknown; see
        `Table.features`.
    """
    with checks.located(f"in {file}"):
        try:
            x = table.features(raw.frame, lines=raw.lines, strict=strict)
        except TableError as error:
            raise ValueError(describe(error.problems, {}, str)) from None
        gaps = table.gaps(raw.frame, lines=raw.lines)
    if not gaps:
        return x
    rows = len(set(np.concatenate([gap.rows for gap in gaps]).tolist()))
    listed = "".join(f"\n  column {gap.problem.column!r}: {gap.problem.text}" for gap in gaps)
    filled = f"{rows:,} of {len(x):,} rows have missing or unknown values, which are filled"
    if table.missing == "error" or any(gap.unknown for gap in gaps):
        warnings.warn(f"{filled} with averages; --strict refuses them{listed}", stacklevel=2)
    else:
        say(escape(f"{filled} as in training{listed}"))
    return x


def print_scores(raw: RawTable, table: Table, prediction: np.ndarray, *, seen: bool) -> None:
    """Print the scores of the predictions if the file contains the targets.

    Args:
      raw: the rows of the file.
      table: the encoding of the run.
      prediction: the predictions (rows, outputs).
      seen: True if this is the file of the training data.
    """
    if not all(name in raw.frame for name in table.target_names):
        return
    rows = np.flatnonzero(~np.logical_or.reduce([missing_rows(raw.frame[name]) for name in table.target_names]))
    lines = None if raw.lines is None else raw.lines[rows]
    if not rows.size:
        return
    try:
        y = table.targets({name: raw.frame[name][rows] for name in table.target_names}, lines=lines)
    except ValueError as error:
        warnings.warn(f"no scores: {error}", stacklevel=2)
        return
    if seen:
        note("most rows of this file were used in training; result.json has the scores of the test rows")
    count = f"on the {len(rows):,} rows with {table.target}"
    if table.task == "classification":
        scores = class_scores(table, prediction[rows], Data((), jnp.asarray(y)))
        accuracy = float((prediction[rows].argmax(1) == y).mean())
        auc = "" if scores.auc is None else f"   AUC {scores.auc:.4f}"
        say(f"{escape(count)}: accuracy {accuracy:.4f}   balanced accuracy {scores.balanced_accuracy:.4f}{auc}")
        return
    for name, scores_of_target in target_scores(table, prediction[rows], y).items():
        r2 = (
            f"R² {scores_of_target['r2']:.4f}   " if np.isfinite(scores_of_target["r2"]) else ""
        )  # NaN if the target is constant
        say(escape(f"{count if table.several is None else name}: {r2}RMSE {scores_of_target['rmse']:.4g}"))
