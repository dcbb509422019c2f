"""Encode the rows of a table as numbers, and decode predictions."""

import math
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np

from nnjax.data._csv import LONGEST_QUOTE, quote
from nnjax.data._dates import date_names, encode_dates, parse_dates
from nnjax.data._frame import Frame, as_texts, column_values, is_numeric, missing_rows
from nnjax.data._kinds import Column, Kind, first_text, parse_numbers_of
from nnjax.data._numbers import EXACT, STRINGS, Decimal
from nnjax.data._problems import Line, Problem, TableError, line_numbers, missing_values

__all__ = [
    "Column",
    "Gap",
    "Missing",
    "Table",
    "Target",
    "Task",
    "check_table",
    "column_numbers",
    "column_texts",
    "encode",
    "feature_names",
    "inexact_rows",
    "list_names",
]

Task = Literal["classification", "regression"]
Missing = Literal["error", "drop", "mean", "median", "category"]  # treatment of missing values


class Target(NamedTuple):
    """One of several targets of a regression, with the moments that standardise it."""

    name: str
    mean: float
    std: float


class Gap(NamedTuple):
    """Rows in which a column has missing values or unknown categories."""

    rows: np.ndarray  # row numbers
    problem: Problem
    unknown: bool  # True for categories that did not occur in training, False for missing values


class Table(NamedTuple):
    """The encoding of table rows as numbers, in plain values that can be stored as JSON."""

    task: Task
    target: str  # name of the target; names of several targets are joined by commas
    classes: list[str]  # names of the labels 0, 1, …; empty for regression
    columns: list[Column]
    mean: list[float]  # mean of each feature over the training rows, to be subtracted
    std: list[float]  # standard deviation of each feature over the training rows, the divisor
    target_mean: float = 0.0  # mean of the target of a regression; 0 if there are several targets
    target_std: float = 1.0
    target_kind: Kind = "text"  # kind of the target; numeric classes are compared by value, others as strings
    missing: Missing = "error"
    fill: list[float] | None = None  # value of each feature that replaces missing values; None means the mean
    na: list[str] | None = None  # strings that mark missing values, in addition to the usual ones
    several: list[Target] | None = None  # the targets of a regression if there are several; None if there is one
    target_decimal: Decimal = "."  # decimal separator of the target in a CSV file

    @property
    def outputs(self) -> int:
        """Return the number of network outputs, one for each class or target."""
        return len(self.classes) or len(self.several or ()) or 1

    @property
    def target_names(self) -> list[str]:
        """Return the names of the target columns."""
        return [self.target] if self.several is None else [target.name for target in self.several]

    def features(self, frame: Frame, *, lines: np.ndarray | None = None, strict: bool = True) -> np.ndarray:
        """Return standardised float32 features (rows, features).

        Args:
          frame: the rows.
          lines: (rows,) the line of each row in its file, for messages.
          strict: True raises an error for categories that did not occur in training and, if `missing` is "error", for
            missing values. False replaces both with the value in `fill`, or with the category "" if the column has it.

        Raises:
          TableError: a ValueError, as described for `strict`; the message lists all such columns.
          ValueError: if columns are missing, if a column of numbers contains text, or if numbers are infinite, too
            large for float32, or lose digits as float64.
        """
        numbers, gaps = encode(frame, self.columns, lines)
        refused = [gap.problem for gap in gaps if gap.unknown or self.missing == "error"]
        if strict and refused:
            raise TableError(refused)
        if gaps:
            numbers = np.where(np.isnan(numbers), np.array(self.fill or self.mean), numbers)
        return _standardise(numbers, np.array(self.mean), np.array(self.std), line_numbers(lines))

    def in_units(self, outputs: np.ndarray) -> np.ndarray:
        """Convert the outputs (rows, targets) of a regression to the units of the targets, as float64."""
        if self.several is None:
            return outputs.astype(float) * self.target_std + self.target_mean
        mean, std = (np.array([getattr(t, moment) for t in self.several]) for moment in ("mean", "std"))
        return np.asarray(outputs.astype(float) * std + mean)

    def gaps(self, frame: Frame, *, lines: np.ndarray | None = None) -> list[Gap]:
        """Return the gaps of all columns; a column with missing values and unknown categories has two gaps."""
        return encode(frame, self.columns, lines)[1]

    def targets(self, frame: Frame, *, lines: np.ndarray | None = None) -> np.ndarray:
        """Return int32 labels (rows,), or standardised float32 targets (rows, targets) for regression.

        Raises:
          ValueError: if values are missing, if a label did not occur in training, or if a target of a regression is
            text or too large for float32.
        """
        if self.several is not None:
            columns = [_numbers(t.name, _complete(frame, t.name, lines), lines) for t in self.several]
            mean, std = (np.array([getattr(t, moment) for t in self.several]) for moment in ("mean", "std"))
            return _standardise(np.stack(columns, axis=1), mean, std, line_numbers(lines))
        values = _complete(frame, self.target, lines)
        if self.task == "regression":
            numbers = _numbers(self.target, values, lines)
            return _standardise(numbers, self.target_mean, self.target_std, line_numbers(lines))[:, None]
        labels: dict[Any, int] = {name: i for i, name in enumerate(self.classes)}
        if self.target_kind == "number":
            labels = {_number(name): i for name, i in labels.items()}
            values = values if is_numeric(values) else _numbers(self.target, values, lines)
        else:
            values = as_texts(values)
        unknown = [row for row, value in enumerate(values.tolist()) if value not in labels]
        if unknown:
            raise ValueError(
                f"column {self.target!r}: {quote(str(values[unknown[0]]))} is not among the classes "
                f"{list_names(self.classes)} ({line_numbers(lines)(unknown[0])})"
            )
        return np.array([labels[value] for value in values.tolist()], np.int32)


def check_table(table: Table) -> Table:
    """Check that a table from a file is consistent, and return it.

    Raises:
      ValueError: if lengths are wrong, if numbers are not finite, if standard deviations are not positive, or if
        columns, classes or categories are missing or occur twice.
    """
    names = [column.name for column in table.columns]
    features = sum(len(feature_names(column)) for column in table.columns)
    scales = table.several or []
    fill = table.mean if table.fill is None else table.fill
    means = [*table.mean, *fill, table.target_mean, *(target.mean for target in scales)]
    stds = [*table.std, table.target_std, *(target.std for target in scales)]
    numeric = table.target_kind == "number"
    labels: list[Any] = [_number(name) for name in table.classes] if numeric else list(table.classes)
    lists = {"columns": [*table.target_names, *names], "classes": labels}
    lists |= {f"categories of {column.name!r}": column.categories or [] for column in table.columns}
    repeated = [name for name, entries in lists.items() if len(set(entries)) < len(entries)]
    wrong = {
        f"{(repeated or [''])[0]}: two entries are equal": bool(repeated),
        f"columns: expected at least 1, got {len(names)}": not names,
        f"mean: expected {features} numbers, got {len(table.mean)}": len(table.mean) != features,
        f"std: expected {features} numbers, got {len(table.std)}": len(table.std) != features,
        "columns: only numbers and dates have no categories": any(
            (column.kind in ("number", "date")) != (column.categories is None) or column.categories == []
            for column in table.columns
        ),
        "columns: a date needs a format": any((column.kind == "date") != bool(column.date) for column in table.columns),
        f"fill: expected {features} numbers, got {len(fill)}": len(fill) != features,
        "mean: expected finite numbers": not all(map(math.isfinite, means)),
        "std: expected finite numbers > 0": not all(0 < std < math.inf for std in stds),
        "several: expected at least 2 targets of a regression": table.several is not None
        and (table.task != "regression" or len(scales) < 2),
        f"classes: got {len(labels)} for a {table.task}": (len(labels) >= 2) != (table.task == "classification")
        or len(labels) == 1,
    }
    for problem, holds in wrong.items():
        if holds:
            raise ValueError(problem)
    return table


def feature_names(column: Column) -> list[str]:
    """Return the names of the features that encode a column, such as "colour=red"."""
    if column.kind == "date":
        return [f"{column.name} {part}" for part in date_names(column.date)]
    if column.categories is None:
        return [column.name]
    return [f"{column.name}={category}" for category in column.categories]


def encode(frame: Frame, columns: Sequence[Column], lines: np.ndarray | None = None) -> tuple[np.ndarray, list[Gap]]:
    """Return float64 features (rows, features): numbers unchanged, dates as numbers, categories one-hot encoded.

    Missing values and unknown categories become NaN in all features of the column, and are returned as gaps. If the
    column has the category "", they get this category instead. Missing values and rare strings are then not gaps.

    Raises:
      ValueError: if columns are missing, if values are infinite, if integers would lose digits as float64, or if a
        column of numbers contains text.
    """
    absent = [column.name for column in columns if column.name not in frame]
    if absent:
        raise ValueError(f"missing columns: {list_names(absent)}")
    parts, gaps = [], []
    for column in columns:
        values = column_values(frame, column.name)
        part, gap = _encode_column(column, values, lines)
        parts.append(part)
        gaps += gap
    return np.concatenate(parts, axis=1).astype(np.float64, copy=False), gaps


def _encode_column(column: Column, values: np.ndarray, lines: np.ndarray | None) -> tuple[np.ndarray, list[Gap]]:
    line, missing = line_numbers(lines), missing_rows(values)
    if column.kind == "date":
        dates = values if values.dtype.kind == "M" else parse_dates(as_texts(values).tolist(), column.date)
        part = encode_dates(dates, column.date)
        missing = np.isnat(dates)
    elif column.categories is None:
        part = _numbers(column.name, values, lines)[:, None]
        missing = np.isnan(part[:, 0])  # also for strings in memory that mark missing values, such as NA
    else:
        return _encode_texts(column, values, missing, line)
    if not missing.any():
        return part, []
    return part, [Gap(np.flatnonzero(missing), missing_values(column.name, missing, line), False)]


def _encode_texts(column: Column, values: np.ndarray, missing: np.ndarray, line: Line) -> tuple[np.ndarray, list[Gap]]:
    categories = column.categories or []
    texts = as_texts(_no_dates(column.name, values))
    part = (texts[:, None] == np.array(categories, dtype=object)[None]).astype(np.float64)
    unknown = ~missing & ~part.any(1)
    gaps = []
    if "" in categories:
        part[missing | unknown, categories.index("")] = 1
    else:
        part[missing | unknown] = np.nan
        if missing.any():
            gaps.append(Gap(np.flatnonzero(missing), missing_values(column.name, missing, line), False))
    if unknown.any() and not column.rare:
        rows = np.flatnonzero(unknown)
        known = list_names([name for name in categories if name])
        text = f"{quote(texts[rows[0]])} is not among the categories in training, {known} ({line(int(rows[0]))}"
        more = f", {len(rows)} such rows in all)" if len(rows) > 1 else ")"
        gaps.append(Gap(rows, Problem(column.name, text + more), True))
    return part, gaps


def list_names(names: Collection[str]) -> str:
    """Return the first 20 names, shortened and joined for a message."""
    return ", ".join(name[:LONGEST_QUOTE] for name in islice(names, 20)) + (" …" if len(names) > 20 else "")


def column_texts(frame: Frame, name: str) -> np.ndarray:
    """Return the values (rows,) of a column as strings, with None for missing values."""
    return as_texts(column_values(frame, name))


def column_numbers(frame: Frame, name: str, lines: np.ndarray | None = None) -> np.ndarray:
    """Return the values (rows,) of a column of numbers as float64, with NaN for missing values."""
    return _numbers(name, column_values(frame, name), lines).astype(np.float64, copy=False)


def _complete(frame: Frame, name: str, lines: np.ndarray | None) -> np.ndarray:
    """Check that a column has no missing values, and return its values."""
    values = column_values(frame, name)
    missing = missing_rows(values)
    if missing.any():
        raise TableError([missing_values(name, missing, line_numbers(lines))])
    return values


def _no_dates(name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "M":
        raise ValueError(f"column {name!r} must hold numbers or strings, got {values.dtype}")
    return values


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def _numbers(name: str, values: np.ndarray, lines: np.ndarray | None) -> np.ndarray:
    """Return a column of numbers as float64, with NaN for missing values.

    Raises:
      ValueError: if values are infinite, text, or integers that float64 cannot represent.
    """
    line = line_numbers(lines)
    if not is_numeric(_no_dates(name, values)):
        texts = np.array(["" if value is None else value for value in values], STRINGS)
        parsed = parse_numbers_of(texts)
        if parsed is None:
            wrong, row = first_text(texts)
            raise ValueError(f"column {name!r} must hold numbers, got {quote(wrong)} in {line(row)}; correct it")
        values = parsed
    numbers = values.astype(np.float64, copy=False)
    for row in inexact_rows(values)[:1]:
        raise ValueError(
            f"column {name!r}: {values[row]} in {line(int(row))} has more digits than a float64 number holds; drop the "
            "column, or make it categorical"
        )
    infinite = np.flatnonzero(np.isinf(numbers))
    if infinite.size:
        raise ValueError(f"column {name!r}: {line(int(infinite[0]))} holds an infinite number")
    return numbers


def inexact_rows(values: np.ndarray) -> np.ndarray:
    """Return the rows with integers that would lose digits as float64."""
    if values.dtype.kind not in "iu":
        return np.zeros(0, np.int64)
    rows = np.flatnonzero(np.abs(values.astype(np.float64)) >= EXACT)
    return np.array([row for row in rows if int(float(values[row])) != int(values[row])], np.int64)


def _standardise(numbers: np.ndarray, mean: Any, std: Any, line: Line) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scaled = ((numbers - mean) / std).astype(np.float32)
    infinite = ~np.isfinite(scaled)
    if infinite.any():
        raise ValueError(f"{line(int(np.argwhere(infinite)[0][0]))} holds a number too large for float32")
    return scaled
