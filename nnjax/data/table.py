"""Read tables from CSV and NPZ files and encode their rows as numbers."""

import difflib
import math
from collections.abc import Collection, Mapping
from decimal import Decimal
from functools import cache
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from nnjax import checks
from nnjax.data._csv import (
    EXACT,
    LONGEST_QUOTE,
    STRINGS,
    Kind,
    clean_text,
    describe_text,
    parse_column,
    quote,
    read_csv,
)
from nnjax.data._npz import read_npz

Task = Literal["classification", "regression"]
Frame: TypeAlias = Mapping[str, Any]  # a column (rows,) for each name: a dict of arrays, or a DataFrame of pandas
MOST_CLASSES = 20  # an integer column with more distinct values holds numbers, not labels
MOST_CATEGORIES = 100
LEAST_STD = 1e-30  # least deviation of a target, because errors in its units are float32


class Column(NamedTuple):
    """A column of numbers, or of categories, which are one-hot encoded."""

    name: str
    kind: Kind = "number"
    categories: list[str] | None = None  # None for numbers


class Table(NamedTuple):
    """The encoding of rows as numbers, and of predictions back to labels, as plain values that JSON can represent."""

    task: Task
    target: str
    classes: list[str]  # names of the labels 0, 1, …; empty for regression
    columns: list[Column]
    mean: list[float]  # mean of each feature over the training rows, which is subtracted
    std: list[float]  # standard deviation of each feature over the training rows, the divisor
    target_mean: float = 0.0  # mean of the target of a regression
    target_std: float = 1.0
    target_kind: Kind = "text"  # classes that are numbers are compared by value, others as texts

    def features(self, frame: Frame) -> np.ndarray:
        """Return standardised features (rows, features), float32.

        Raises:
          ValueError: for missing columns, missing values, and categories that did not occur in training.
        """
        return _standardise(encode(frame, self.columns), np.array(self.mean), np.array(self.std))

    def targets(self, frame: Frame) -> np.ndarray:
        """Return labels (rows,) int32, or standardised numbers (rows, 1) float32.

        Raises:
          ValueError: for a label that did not occur in training, and text in a regression.
        """
        values = _values(frame, self.target)
        check_complete(self.target, values)
        if self.task == "regression":
            return _standardise(_numbers(self.target, values), self.target_mean, self.target_std)[:, None]
        labels: dict[Any, int] = {name: i for i, name in enumerate(self.classes)}
        if self.target_kind == "number":
            labels = {_number(name): i for name, i in labels.items()}
            values = values if _is_numeric(values) else parse_column(self.target, values.astype(STRINGS), "number")
        else:
            values = _texts(values)
        unknown = sorted({str(value) for value in values.tolist() if value not in labels})
        if unknown:
            known = list_names(self.classes)
            raise ValueError(f"column {self.target!r}: {quote(unknown[0])} is not among the classes {known}")
        return np.array([labels[value] for value in values.tolist()], np.int32)


def read_table(path: Path, *, table: Table | None = None, categorical: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Read a CSV file with a header, or the arrays `x` and `y` of an NPZ file as columns `x0`, `x1`, … and `y`.

    Args:
      path: the file.
      table: read the columns of this table only, each as the kind that it had in training; None for all columns, with
        the kinds that their values have.
      categorical: names of columns that hold categories, even if they look like numbers or missing values.

    Returns:
      Numbers (rows,), NaN where missing, or texts (rows,), None where missing, for each column.

    Raises:
      FileNotFoundError, OSError, ValueError: if the file does not exist or cannot be read; the message names the path.
    """
    if path.suffix.lower() == ".npz":
        x, y = read_npz(path)
        flat = x.reshape(len(x), math.prod(x.shape[1:]))
        frame = {f"x{i}": flat[:, i] for i in range(flat.shape[1])} | ({} if y is None else {"y": y})
        _check_categorical(path, categorical, frame)
        return frame | {name: _texts(_values(frame, name)) for name in categorical}
    fields = read_csv(path)
    _check_categorical(path, categorical, fields)
    kinds: dict[str, Kind] = dict.fromkeys(categorical, "category")
    if table is not None:
        kinds = {column.name: column.kind for column in table.columns}
        fields = {name: fields[name] for name in kinds if name in fields}
    with checks.located(f"in {path}"):
        return {name: parse_column(name, column, kinds.get(name)) for name, column in fields.items()}


def choose_task(frame: Frame, name: str, task: Task | None = None) -> tuple[Task, str]:
    """Return the task, and the reason for it in words. None chooses the task by the values of the target.

    Raises:
      ValueError: for missing values, and for text with more different values than half of the rows.
    """
    values = _values(frame, name)
    check_complete(name, values)
    distinct = len(set(values.tolist()))
    if task is not None:
        return task, "task was set"
    if not _is_numeric(values):
        if distinct > max(len(values) / 2, 2):
            raise ValueError(
                f"column {name!r} holds {distinct} distinct texts in {len(values)} rows, for example "
                f"{describe_text(values.astype(STRINGS))}; classes need more rows, and a regression needs numbers"
            )
        return "classification", f"{name!r} holds text or booleans, {distinct} distinct values"
    if values.dtype.kind in "iu" and distinct <= MOST_CLASSES:
        return "classification", f"{name!r} holds {distinct} distinct integers"
    return "regression", f"{name!r} holds {distinct} distinct numbers"


def fit_table(
    frame: Frame, target: str, task: Task, training: np.ndarray, *, categorical: Collection[str] = ()
) -> Table:
    """Return the encoding of a table.

    Classes and categories come from all rows, so that a split cannot hide one. Means and standard deviations come from
    the training rows.

    Args:
      frame: all rows.
      target: the column to predict.
      task: classification or regression.
      training: row numbers of the training part.
      categorical: see `read_table`.

    Raises:
      ValueError: for missing values, text columns with too many distinct values, and a target that is constant or whose
        scale float32 cannot hold.
    """

    def kind(name: str, values: np.ndarray) -> Kind:
        return "number" if _is_numeric(values) else "category" if name in categorical else "text"

    columns = []
    for name in frame:
        if name == target:
            continue
        values = _values(frame, name)
        check_complete(name, values)
        columns.append(Column(str(name), kind(name, values), _categories(name, values)))
    if not columns:
        raise ValueError(f"the target {target!r} is the only column; at least one more is needed")
    mean, std = _moments(encode(frame, columns)[training])
    values = _values(frame, target)
    table = Table(task, target, [], columns, mean=mean.tolist(), std=std.tolist(), target_kind=kind(target, values))
    if task == "classification":
        distinct: list[Any] = sorted(set(values.tolist()))  # numbers are sorted by value, not as text
        if len(distinct) < 2:
            raise ValueError(
                f"column {target!r} holds only one class, {quote(str(distinct[0]))}; a classifier needs at least two "
                "classes"
            )
        return table._replace(classes=[str(label) for label in distinct])
    numbers = _numbers(target, values)[training]
    if (numbers == numbers[0]).all():
        raise ValueError(f"column {target!r} is {numbers[0]:g} in all rows; the target must vary")
    target_mean, target_std = (float(moment) for moment in _moments(numbers))
    if not LEAST_STD < target_std < 1 / LEAST_STD:
        raise ValueError(
            f"column {target!r} has the standard deviation {target_std:g}; predictions are float32, so scale the target"
        )
    return table._replace(target_mean=target_mean, target_std=target_std, target_kind="number")


def check_table(table: Table) -> Table:
    """Return a table that was read from a file, after checking that its parts fit together.

    Raises:
      ValueError: for wrong lengths, for numbers that are not finite, for deviations that are not positive, and for
        names, classes or categories that are missing or occur twice.
    """
    names = [column.name for column in table.columns]
    features = sum(1 if column.categories is None else len(column.categories) for column in table.columns)
    numeric = table.target_kind == "number"
    labels: list[Any] = [_number(name) for name in table.classes] if numeric else list(table.classes)
    lists = {"columns": [table.target, *names], "classes": labels}
    lists |= {f"categories of {column.name!r}": column.categories or [] for column in table.columns}
    repeated = [name for name, entries in lists.items() if len(set(entries)) < len(entries)]
    wrong = {
        f"{(repeated or [''])[0]}: two entries are equal": bool(repeated),
        f"columns: expected at least 1, got {len(names)}": not names,
        f"mean: expected {features} numbers, got {len(table.mean)}": len(table.mean) != features,
        f"std: expected {features} numbers, got {len(table.std)}": len(table.std) != features,
        "columns: only numbers have no categories": any(
            (column.kind == "number") != (column.categories is None) or column.categories == []
            for column in table.columns
        ),
        "mean: expected finite numbers": not all(map(math.isfinite, [*table.mean, table.target_mean])),
        "std: expected finite numbers > 0": not all(0 < std < math.inf for std in [*table.std, table.target_std]),
        f"classes: got {len(labels)} for a {table.task}": (len(labels) >= 2) != (table.task == "classification")
        or len(labels) == 1,
    }
    for problem, holds in wrong.items():
        if holds:
            raise ValueError(problem)
    return table


def column_texts(frame: Frame, name: str) -> np.ndarray:
    """Return the values (rows,) of a column as texts."""
    return _texts(_values(frame, name))


def column_numbers(frame: Frame, name: str) -> np.ndarray:
    """Return the values (rows,) of a column of numbers as float64."""
    return _numbers(name, _values(frame, name)).astype(np.float64, copy=False)


def encode(frame: Frame, columns: list[Column]) -> np.ndarray:
    """Return (rows, features) float64: numbers unchanged, categories one-hot encoded.

    Raises:
      ValueError: for missing columns, missing and infinite values, integers that lose digits as float64, text in
        columns of numbers, and unknown categories.
    """
    missing = [column.name for column in columns if column.name not in frame]
    if missing:
        raise ValueError(f"missing columns: {list_names(missing)}")
    parts = []
    for column in columns:
        values = _values(frame, column.name)
        check_complete(column.name, values)
        if column.categories is None:
            parts.append(_numbers(column.name, values)[:, None])
            continue
        texts = _texts(values)
        unknown = sorted(set(texts) - set(column.categories))
        if unknown:
            raise ValueError(
                f"column {column.name!r}: {quote(unknown[0])} is not among the categories in training, "
                f"{list_names(column.categories)}"
            )
        parts.append(texts[:, None] == np.array(column.categories, dtype=object)[None])
    return np.concatenate(parts, axis=1).astype(np.float64, copy=False)


def check_complete(name: str, values: np.ndarray) -> None:
    """Check that no value is missing.

    Raises:
      ValueError: if values are missing; the message has their number and the first row.
    """
    texts = values.dtype == object
    missing = np.array([value is None for value in values], bool) if texts else np.isnan(values)
    if missing.any():
        hint = "; texts such as NA are categories only in quotes, or if the column is categorical" if texts else ""
        raise ValueError(
            f"column {name!r}: {int(missing.sum())} values are missing, the first in row "
            f"{int(missing.argmax())}; fill them or drop the rows{hint}"
        )


def check_column(path: Path, kind: str, name: str, frame: Frame) -> None:
    """Check that a file has a column. The message lists the most similar names of the first thousand.

    Raises:
      ValueError: if it has none.
    """
    if name not in frame:
        checks.one_of(str(path), kind, name, difflib.get_close_matches(name, islice(frame, 1000), 20, cutoff=0))


def list_names(names: Collection[str]) -> str:
    """Return the first names, for a message."""
    return ", ".join(name[:LONGEST_QUOTE] for name in islice(names, 20)) + (" …" if len(names) > 20 else "")


def _check_categorical(path: Path, categorical: Collection[str], frame: Frame) -> None:
    for name in categorical:
        check_column(path, "categorical column", name, frame)


def _values(frame: Frame, name: str) -> np.ndarray:
    """Return the values of a column: integers, float64, or texts, with None for each missing text."""
    column = frame[name]
    if isinstance(column, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(column)
        column = [None if hidden else value for hidden, value in zip(mask, column.data.tolist(), strict=True)]
    values = np.asarray(column)
    if type(getattr(column, "dtype", None)).__name__ == "CategoricalDtype":  # of pandas; categories may be numbers
        values = values.astype(object)
    elif values.dtype == object:
        values = _unboxed(values)
    if values.ndim != 1:
        raise ValueError(f"column {name!r} must be one value for each row, got an array of shape {values.shape}")
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a long double may become infinite, which is refused later
            return values.astype(np.float64, copy=False)
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind not in "bOSTU":
        raise ValueError(f"column {name!r} must hold numbers or texts, got {values.dtype}")
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    clean = cache(clean_text)  # many rows share few texts
    return np.array([None if _is_missing(value) else clean(str(value)) for value in values.tolist()], object)


def _unboxed(values: np.ndarray) -> np.ndarray:
    """Return Python numbers as an array of numbers, and all other objects unchanged."""
    numbers = values.tolist() if values.ndim == 1 and values.size else [None]
    if not all(isinstance(value, Real | Decimal) and not isinstance(value, bool) for value in numbers):
        return values
    array = np.array([float(value) if isinstance(value, Decimal) else value for value in numbers])
    return array if array.dtype.kind in "iuf" else values


def _is_missing(value: Any) -> bool:
    """Return True for None, NaN, and pandas' NA and NaT."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _texts(values: np.ndarray) -> np.ndarray:
    return values.astype(str).astype(object) if _is_numeric(values) else values


def _is_numeric(values: np.ndarray) -> bool:
    return values.dtype.kind in "iuf"


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def _numbers(name: str, values: np.ndarray) -> np.ndarray:
    """Return a column of numbers as float64, without a change of any digit.

    Raises:
      ValueError: for missing and infinite values, text, and integers that float64 cannot represent.
    """
    check_complete(name, values)
    if not _is_numeric(values):
        values = parse_column(name, values.astype(STRINGS), "number")
        check_complete(name, values)
    numbers = values.astype(np.float64, copy=False)
    for row in np.flatnonzero(np.abs(numbers) >= EXACT) if values.dtype.kind in "iu" else ():
        if int(numbers[row]) != int(values[row]):
            raise ValueError(
                f"column {name!r}: {values[row]} in row {row} has more digits than a float64 number holds; drop the "
                "column, or make it categorical"
            )
    return _finite(numbers, f"column {name!r}: ")


def _moments(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means and standard deviations over the rows; 1 as the deviation of a constant column, which becomes 0."""
    # Scaling by powers of two changes no bit, but the squares of 1e300 and of 1e-300 would be infinite and zero
    exponent = np.frexp(np.abs(numbers).max(0))[1]
    scaled = np.ldexp(numbers, -exponent)
    # The range is compared with 0, because the deviation of a constant column may be a rounding error
    std = np.where(np.ptp(scaled, 0) == 0, 1.0, np.ldexp(scaled.std(0), exponent))
    return np.ldexp(scaled.mean(0), exponent), std


def _standardise(numbers: np.ndarray, mean: Any, std: Any) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _finite(((numbers - mean) / std).astype(np.float32), what="a number too large for float32")


def _finite(numbers: np.ndarray, where: str = "", what: str = "an infinite number") -> np.ndarray:
    infinite = ~np.isfinite(numbers)
    if infinite.any():
        raise ValueError(f"{where}row {int(np.argwhere(infinite)[0][0])} holds {what}")
    return numbers


def _categories(name: str, values: np.ndarray) -> list[str] | None:
    if _is_numeric(values):
        return None
    names = sorted(set(values))
    if len(names) > MOST_CATEGORIES or len(names) == len(values):
        raise ValueError(
            f"column {name!r} holds {len(names)} distinct texts in {len(values)} rows, "
            f"for example {describe_text(values.astype(STRINGS))}; drop the column or convert it to numbers"
        )
    return names
