"""Write the CSV file of predictions, without overwriting other files."""

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np

from nnjax import nn
from nnjax.cli import run_folder
from nnjax.data._csv import MISSING
from nnjax.data.table import Table
from nnjax.storage.atomic_write import write_records

PREDICTIONS = "predictions.csv"
NOTHING: Mapping[str, np.ndarray] = MappingProxyType({})
RESERVED = (run_folder.RECEIPT, run_folder.SWEEP, run_folder.ROWS)  # not allowed as `out`


def columns_of(
    prediction: np.ndarray, table: Table, spread: Mapping[str, np.ndarray], extra: Mapping[str, np.ndarray] = NOTHING
) -> dict[str, Any]:
    """Return the columns of the CSV file: `extra`, the target, the probabilities, and the disagreement of the members.

    An underscore is appended to names that are already taken, because columns must have different names.
    If the target itself is kept, the name of its prediction ends in _predicted.
    """
    if table.task == "regression":
        values = table.in_units(prediction)
        columns: dict[str, Any] = {name: values[:, i] for i, name in enumerate(table.target_names)}
        more = dict(spread)
        if table.several is not None:
            more = {f"sd({name})": sd[:, i] for sd in spread.values() for i, name in enumerate(table.target_names)}
    else:
        probabilities = np.asarray(nn.softmax(jnp.asarray(prediction))).astype(float)
        columns = {table.target: [table.classes[i] for i in probabilities.argmax(1)]}
        more = {f"p({name})": probabilities[:, i] for i, name in enumerate(table.classes)} | dict(spread)
    result: dict[str, Any] = dict(extra)
    for name, values in columns.items():
        result[_free(f"{name}_predicted" if name in extra else name, result)] = values
    names = {*table.target_names, *(column.name for column in table.columns), *result}
    for name, values in more.items():
        free = _free(name, names)
        names.add(free)
        result[free] = values
    return result


def _free(name: str, names: Collection[str]) -> str:
    """Append underscores to a name until it differs from all other names."""
    while name in names:
        name += "_"
    return name


def write(out: Path, columns: Mapping[str, Any], table: Table) -> None:
    """Write the columns as CSV. Strings are quoted if a class has the name of a missing value, such as NA."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*(list(v) for v in columns.values()), strict=True)]
    write_records(out, rows, quote_texts=not MISSING.isdisjoint(table.classes))


def check_output(out: Path, run: Path, inputs: Iterable[Path]) -> None:
    """Check that `out` would replace neither an input nor a file of the run, except older predictions.

    Raises:
      FileExistsError: if `out` is such a file or a link to one, or exists but is not a regular file.
    """
    if out.exists() and not out.is_file():
        raise FileExistsError(f"--out {out} is not a regular file; choose another name")
    protected = ({run / name for name in RESERVED} | set(run.rglob("*"))) - {run / PREDICTIONS}
    for path in (
        *filter(Path.is_file, inputs),
        *protected,
    ):  # `inputs` may contain the name of a data set, which is not a file
        if is_same_file(out, path):
            raise FileExistsError(f"--out {out} would overwrite {path}; choose another name")


def is_same_file(a: Path, b: Path) -> bool:
    """Return True if two paths lead to the same file, or would if the file existed."""
    with suppress(OSError):
        return a.samefile(b)
    return os.path.realpath(a) == os.path.realpath(b)  # Path.resolve raises for circular links
