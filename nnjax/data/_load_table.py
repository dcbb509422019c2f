"""Load a table from a file or from memory: drop columns, fill missing values, split the rows and encode them."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.data._csv import quote, split_names
from nnjax.data._fit_table import choose_task, find_problems, fit_table, nearly_numbers
from nnjax.data._frame import missing_rows
from nnjax.data._kinds import Kind
from nnjax.data._numbers import Decimal
from nnjax.data._problems import TableError, line_numbers
from nnjax.data._read_table import RawTable, check_column, in_memory, read_table
from nnjax.data._split import split_rows
from nnjax.data._suspicious import UNNAMED, describe_index, warnings_about
from nnjax.data.table import Missing, Table, Task, column_texts, list_names
from nnjax.types import Data

MISSING_RULES = ("error", "drop", "mean", "median", "category")
LEAST_ROWS = 5
AVERAGE = "the average of all categories"
FEW_TEXTS = 10  # columns with at most this many distinct strings may contain codes such as 01, 1 and A


class Dataset(NamedTuple):
    """Training data, test data, and the table that encodes their rows as numbers."""

    train: Data  # x (rows, features) float32; y (rows,) int32, or (rows, targets) float32 for regression
    test: Data
    table: Table  # task, names of classes and columns, standardisation
    why: str = ""  # reason for the choice of the task, in words
    rows: np.ndarray | None = (
        None  # row numbers of the training part, from 0 after the header; None if the set is named
    )
    notes: tuple[str, ...] = ()  # sentences on how columns were read and missing values filled
    lines: np.ndarray | None = None  # line numbers of the training rows; None unless they come from a CSV file


@dataclass(frozen=True)
class TableOptions:
    """The options of `load` that apply to tables; see `load`."""

    target: str | Sequence[str] | None = None
    task: Task | None = None
    categorical: Sequence[str] = ()
    drop: Sequence[str] = ()
    missing: Missing = "error"
    na: Sequence[str] = ()
    separator: str | None = None
    decimal: Decimal | None = None
    test_share: float = 0.2
    seed: int = 0
    kinds: Mapping[str, Kind] = field(default_factory=dict)  # kinds of columns from the run to repeat

    def __post_init__(self) -> None:
        for name in ("categorical", "drop", "na"):
            if isinstance(value := getattr(self, name), str):
                raise TypeError(f"load: {name} must be a list, got {value!r}; write [{value!r}]")
        if self.task is not None:
            checks.one_of("load", "task", self.task, ("classification", "regression"))
        if self.decimal is not None:
            checks.one_of("load", "decimal separator", self.decimal, (".", ","))
        if self.separator is not None and (not isinstance(self.separator, str) or len(self.separator) != 1):
            raise ValueError(f"load: sep must be one character, such as ';' or '\\t', got {self.separator!r}")
        checks.one_of("load", "rule for missing values", self.missing, MISSING_RULES)
        checks.in_range("load", "test_share", self.test_share, "(0, 1)")
        checks.positive_int("load", "seed", self.seed, 0, bits=64)


def load_table(source: Any, options: TableOptions) -> Dataset:
    """Load a data set from the path of a file, from a DataFrame, or from a dict of arrays; see `load`."""
    is_file = isinstance(source, Path)
    place = str(source) if is_file else "the table"
    kinds: dict[str, Kind] = {**options.kinds, **dict.fromkeys(options.categorical, "category")}
    if is_file:
        raw = read_table(
            source, kinds=kinds, separator=options.separator, decimal=options.decimal, na=options.na, drop=options.drop
        )
    else:
        raw = in_memory(source, kinds)
        for name in options.categorical:
            check_column(place, "categorical column", name, raw.frame)
    targets = _targets(place, raw, options, is_npz=is_file and source.suffix.lower() == ".npz")
    name = source.name if is_file else place
    raw = _without(raw, name, options.drop, targets)
    _check_rows(place, len(raw.frame[targets[0]]))
    with checks.located(f"in {place}"):
        return _encode(raw, name, targets, options, warn=raw.lines is not None)


def _targets(place: str, raw: RawTable, options: TableOptions, *, is_npz: bool) -> list[str]:
    """Return the names of the columns to predict."""
    target = options.target
    alone = raw.lines is not None and len(raw.frame) == 1 and options.separator is None
    if alone and target is not None and target not in raw.frame:
        raise ValueError(
            f"{place} has a single column, {quote(next(iter(raw.frame)))}; if another character separates the columns, "
            "name it with --sep, or sep= in Python"
        )
    if target is None and is_npz:
        if "y" not in raw.frame:
            raise ValueError(f"{place}: an array named y is missing, with one entry per row of x")
        target = "y"
    if target is None:
        raise ValueError(f"{place}: name the target, the column to predict; the columns are {list_names(raw.frame)}")
    names = [target] if isinstance(target, str) else list(target)
    if isinstance(target, str) and target not in raw.frame and "," in target:
        names = split_names(target)
    for name in names:
        check_column(place, "target column", name, raw.frame)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{place}: name each target once, got {', '.join(names) or 'none'}")
    if len(names) > 1 and options.task == "classification":
        raise ValueError(
            f"{place}: a classifier must have one target, got {', '.join(names)}; "
            "name one target, or use the task regression"
        )
    regression = options.task == "regression" or len(names) > 1
    if regression and (both := [name for name in names if name in options.categorical]):
        raise ValueError(f"{place}: the target {both[0]!r} of a regression cannot be categorical; omit one of the two")
    return names


def _without(raw: RawTable, place: str, drop: Sequence[str], targets: Sequence[str]) -> RawTable:
    """Remove the columns to drop and an unnamed column of row numbers."""
    for name in drop:
        check_column(place, "column to drop", name, raw.frame)
        if name in targets:
            raise ValueError(f"{place}: the target {name!r} cannot be dropped")
    reason = describe_index(raw.frame)
    if reason is not None and UNNAMED not in (*targets, *drop):
        warnings.warn(f"{place}: the first column has no name and {reason}, so it is left out", stacklevel=5)
        drop = [*drop, UNNAMED]
    return raw._replace(frame={name: values for name, values in raw.frame.items() if name not in drop})


def _encode(raw: RawTable, place: str, targets: list[str], options: TableOptions, *, warn: bool) -> Dataset:
    # Report all problems first, because they could affect the choice of the task
    problems = find_problems(raw.frame, targets, raw.columns, options.missing, raw.lines)
    if problems:
        raise TableError(problems)
    rows = np.flatnonzero(_complete(raw, targets, options.missing))
    notes = list(_row_notes(raw, targets, len(rows), options.missing))
    frame = {name: values[rows] for name, values in raw.frame.items()}
    lines = None if raw.lines is None else raw.lines[rows]
    _check_rows(place, len(rows))
    several = len(targets) > 1
    task, why = choose_task(frame, targets[0], "regression" if several else options.task, lines=lines)
    why = f"{len(targets)} targets" if several else why
    classify = task == "classification"
    labels = column_texts(frame, targets[0]) if classify else np.zeros(len(rows))
    parts = split_rows(labels, options.test_share, seed=options.seed, stratify=classify)
    table = fit_table(
        frame, targets, task, parts[0], columns=raw.columns, missing=options.missing, na=options.na, lines=lines
    )
    x, y = table.features(frame, lines=lines), table.targets(frame, lines=lines)
    if warn:
        for warning in (*_nearly_numbers(raw), *warnings_about(frame, table, lines)):
            warnings.warn(f"{place}: {warning}", stacklevel=5)
    notes += _column_notes(frame, table)
    if classify:
        notes += _class_notes(table, y[parts[0]], y[parts[1]])
    train, test = (Data(jnp.asarray(x[part]), jnp.asarray(y[part])) for part in parts)
    return Dataset(train, test, table, why, rows[parts[0]], tuple(notes), None if lines is None else lines[parts[0]])


def _nearly_numbers(raw: RawTable) -> Iterator[str]:
    """Yield a sentence for each text column in which at least 90 % of the values are numbers."""
    for name, column in raw.columns.items():
        if name in raw.frame and column.kind == "text" and len(set(raw.frame[name].tolist())) > FEW_TEXTS:
            problem = nearly_numbers(name, raw.frame[name], line_numbers(raw.lines))
            if problem is not None:
                yield (
                    f"column {name!r} is read as text: {problem.text}; if {problem.word!r} marks missing values, "
                    f"declare it with --na {problem.word!r}, or na=[{problem.word!r}] in Python"
                )


def _check_rows(place: str, n: int) -> None:
    if n < LEAST_ROWS:
        rows = "1 row is" if n == 1 else f"{n} rows are"
        raise ValueError(f"{place}: {rows} too few to train and to test; at least {LEAST_ROWS} rows are needed")


def _complete(raw: RawTable, targets: Sequence[str], missing: Missing) -> np.ndarray:
    """Return a mask (rows,) of the rows with a target; if `missing` is "drop", of the rows without missing values."""
    used = raw.frame if missing == "drop" else targets
    return ~np.logical_or.reduce([missing_rows(raw.frame[name]) for name in used])


def _row_notes(raw: RawTable, targets: Sequence[str], used: int, missing: Missing) -> Iterator[str]:
    total = len(raw.frame[targets[0]])
    if used < total:
        lacks = "have a missing value" if missing == "drop" else "have no target"
        yield f"left out: {total - used:,} of {total:,} rows, which {lacks}"


def _column_notes(frame: Mapping[str, np.ndarray], table: Table) -> Iterator[str]:
    """Yield notes on columns that are neither plain numbers nor plain strings, and on how missing values are filled."""
    dates = [column.name for column in table.columns if column.kind == "date"]
    if dates:
        yield f"dates, encoded as days and as the position in the year and in the week: {list_names(dates)}"
        yield "the test rows are drawn at random from all dates; scores of later rows can be worse"
    units = [f"{column.name} ({column.unit})" for column in table.columns if column.unit]
    if units:
        yield f"numbers with a unit: {list_names(units)}"
    rare = [column.name for column in table.columns if column.rare]
    if rare:
        yield f"strings whose most frequent values are categories, with one category for all others: {list_names(rare)}"
    extra = [column.name for column in table.columns if "" in (column.categories or ()) and not column.rare]
    if extra:
        yield f"missing strings are a category: {list_names(extra)}"
    gaps = [] if table.fill is None else table.gaps(frame)
    kinds = {column.name: column.kind for column in table.columns}
    median = "the median" if table.missing in ("median", "category") else "the mean"
    fillings = {"number": median, "date": "the mean", "text": AVERAGE, "category": AVERAGE}
    filled: dict[str, list[str]] = {}
    for gap in gaps:
        if not gap.unknown:
            name = gap.problem.column
            filled.setdefault(fillings[kinds[name]], []).append(f"{name} ({len(gap.rows):,})")
    for filling, names in filled.items():
        yield f"missing values filled with {filling}: {list_names(names)}"


def _class_notes(table: Table, train: np.ndarray, test: np.ndarray) -> Iterator[str]:
    """Yield a note on the classes that no test row has; at least one row of each class is a training row."""
    count = len(table.classes)
    rows, tested = np.bincount(train, minlength=count), np.bincount(test, minlength=count)
    missing = [
        f"{name!r} ({rows[i]} {'row' if rows[i] == 1 else 'rows'})"
        for i, name in enumerate(table.classes)
        if not tested[i]
    ]
    if missing:
        yield f"no test row has these classes, so their recall is unknown: {list_names(missing)}"
