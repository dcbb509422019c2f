"""Convert the records of a training history to target units and to rows of metrics.csv, and read them back."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from nnjax.train.engine.options import Record

VALIDATION_SCORES = ("validation_accuracy", "validation_r2")  # shown in addition to the loss


def in_words(name: str) -> str:
    """Return the name of a setting or a score in words.

    >>> from nnjax.cli.history import in_words
    >>> in_words("learning_rate"), in_words("validation_r2"), in_words("r2(price)")
    ('learning rate', 'validation R²', 'R²(price)')
    """
    metric, bracket, target = name.partition("(")
    return metric.replace("_", " ").replace("r2", "R²") + bracket + target


def finite_mean(values: Any) -> float:
    """Return the mean of the finite numbers, or NaN if no number is finite."""
    finite = np.asarray(values, float)[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def in_target_units(record: Record, target_std: float) -> Record:
    """Convert the root mean squared errors of a regression from standard deviations to the units of the target."""
    return {k: v * target_std if k.removesuffix("_sd").endswith("rmse") else v for k, v in record.items()}


def split_members(history: list[Record], stopped_early: np.ndarray) -> list[Record]:
    """Return one record for each member and epoch.

    Args:
      history: records of an ensemble, with arrays (members,).
      stopped_early: (members,) bool, True for members that stopped before the last epoch, whose later records are
        omitted.
    """
    rows = []
    for member, early in enumerate(stopped_early):
        for record in history:
            row = {k: float(v[member]) if isinstance(v, np.ndarray) else v for k, v in record.items()}
            if not (early and np.isnan(row["loss"])):
                rows.append({"member": member, **row})
    return rows


def read_records(path: Path) -> list[Record]:
    """Read the rows of a CSV file of numbers; empty fields become NaN."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: read_number(value) for name, value in row.items()} for row in csv.DictReader(file)]


def read_history(path: Path) -> list[Record]:
    """Read the records in metrics.csv, with arrays (members,) for an ensemble.

    A member that stopped early has NaN after its last epoch.
    """
    rows = read_records(path)
    if not rows or "member" not in rows[0]:
        return rows
    members = 1 + int(max(row["member"] for row in rows))
    records: dict[float, Record] = {}
    for row in rows:
        record = records.setdefault(row["epoch"], {"epoch": row["epoch"], "step": row["step"]})
        for name, value in row.items():
            if name not in ("member", "epoch", "step"):
                record.setdefault(name, np.full(members, math.nan))[int(row["member"])] = value
    return [records[epoch] for epoch in sorted(records)]


def read_number(value: float | str | None) -> float:
    """Convert a field of JSON or CSV to a number; an empty field is NaN."""
    return math.nan if value in (None, "") else float(value)
