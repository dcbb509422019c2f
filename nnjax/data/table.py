"""Read tables from CSV and NPZ files and encode their rows as numbers."""

import math
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame, Series

Task = Literal["classification", "regression"]
MOST_CLASSES = 20  # an integer column with more distinct values holds numbers, not labels
MOST_CATEGORIES = 100


class Column(NamedTuple):
    """A column of numbers, or of categories, which are one-hot encoded."""

    name: str
    categories: list[str] | None  # None for numbers


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

    def features(self, frame: "DataFrame") -> np.ndarray:
        """Return standardised features (rows, features), float32.

        Raises:
          ValueError: for missing columns, missing values, and categories that did not occur in training.
        """
        encoded = encode(frame, self.columns)
        with np.errstate(over="ignore"):
            features = ((encoded - np.array(self.mean)) / np.array(self.std)).astype(np.float32)
        return _finite(features, what="a number too large for float32")

    def targets(self, frame: "DataFrame") -> np.ndarray:
        """Return labels (rows,) int32, or standardised numbers (rows, 1) float32.

        Raises:
          ValueError: for a label that did not occur in training, and text in a regression.
        """
        column = frame[self.target]
        if self.task == "regression":
            numbers = _numbers(column).to_numpy(np.float64)
            return ((numbers - self.target_mean) / self.target_std).astype(np.float32)[:, None]
        labels = column.astype(str)
        unknown = sorted(set(labels) - set(self.classes))
        if unknown:
            known = ", ".join(self.classes)
            raise ValueError(f"column {self.target!r}: {unknown[0]!r} is not among the classes {known}")
        return labels.map({name: i for i, name in enumerate(self.classes)}).to_numpy(np.int32)


def read_table(path: Path) -> "DataFrame":
    """Read a CSV file with a header, or the arrays `x` and `y` of an NPZ file as columns `x0`, `x1`, … and `y`.

    Raises:
      FileNotFoundError, ValueError: if the file does not exist or cannot be read; the message names the path.
      ModuleNotFoundError: if pandas is not installed.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("reading tables needs pandas: pip install 'nnjax[cli]'") from error
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    if path.suffix.lower() == ".npz":
        x, y = _read_npz(path)
        flat = x.reshape(len(x), math.prod(x.shape[1:]))
        frame = pd.DataFrame(flat, columns=[f"x{i}" for i in range(flat.shape[1])])
        return frame if y is None else frame.assign(y=y)
    try:
        frame = pd.read_csv(path, skipinitialspace=True)
    except ValueError as error:  # pandas' parser errors and Unicode errors are ValueErrors
        raise ValueError(f"{path} cannot be read as CSV: {str(error).strip()}") from error
    if not frame.index.equals(pd.RangeIndex(len(frame))):  # pandas takes the first value of each row as its name
        raise ValueError(f"{path}: the rows have more values than the header has names; add the missing names")
    first = str(frame.columns[0])
    if len(frame.columns) == 1 and (";" in first or "\t" in first):
        raise ValueError(f"{path}: only one column, {first!r}; separate the values by commas")
    if first == "Unnamed: 0":
        warnings.warn(
            f"{path}: the first column has no name; if it numbers the rows, omit it, as with to_csv(index=False)",
            stacklevel=2,
        )
    return frame


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the arrays x (rows, ...) and y (rows,); None for y if there is no y."""
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an NPZ file")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as NPZ (arrays of objects are refused): {error}") from error
    if "x" not in arrays or arrays["x"].ndim == 0:
        names = ", ".join(sorted(arrays)) or "no arrays"
        raise ValueError(f"{path}: an array named x (rows, ...) is missing; the file has {names}")
    x, y = arrays["x"], arrays.get("y")
    if y is not None and y.shape not in ((len(x),), (len(x), 1)):
        raise ValueError(f"{path}: y must have one entry per row of x, x is {x.shape}, y {y.shape}")
    return x, None if y is None else y.reshape(-1)


def choose_task(column: "Series[Any]", task: Task | None = None) -> tuple[Task, str]:
    """Return the task, and the reason for it in words. None chooses the task by the values of the target."""
    distinct = int(column.nunique())
    if task is not None:
        return task, "task was set"
    if not _is_numeric(column):
        return "classification", f"{column.name!r} holds text or booleans, {distinct} distinct values"
    if column.dtype.kind in "iu" and distinct <= MOST_CLASSES:
        return "classification", f"{column.name!r} holds {distinct} distinct integers"
    return "regression", f"{column.name!r} holds {distinct} distinct numbers"


def fit_table(frame: "DataFrame", target: str, task: Task, training: np.ndarray) -> Table:
    """Return the encoding of a table.

    Classes and categories come from all rows, so that a split cannot hide one. Means and standard deviations come from
    the training rows.

    Args:
      frame: all rows.
      target: the column to predict.
      task: classification or regression.
      training: row numbers of the training part.

    Raises:
      ValueError: for missing values, text columns with too many distinct values, and a constant target.
    """
    column = frame[target]
    columns = []
    for name in frame.columns:
        if name == target:
            continue
        check_complete(frame[name])
        columns.append(Column(str(name), _categories(frame[name])))
    if not columns:
        raise ValueError(f"the target {target!r} is the only column; at least one more is needed")
    encoded = encode(frame, columns)[training]
    classes: list[str] = []
    target_mean, target_std = 0.0, 1.0
    if task == "classification":
        labels = column if _is_numeric(column) else column.astype(str)
        classes = [str(label) for label in sorted(labels.unique())]  # numbers are sorted by value, not as text
        if len(classes) < 2:
            raise ValueError(
                f"column {target!r} holds only one class, {classes[0]!r}; a classifier needs at least two classes"
            )
    else:
        numbers = _finite(_numbers(column).to_numpy(np.float64), f"column {target!r}: ")[training]
        if np.ptp(numbers) == 0:
            raise ValueError(f"column {target!r} is {numbers[0]:g} in all rows; the target must vary")
        target_mean, target_std = float(numbers.mean()), float(numbers.std())
    # A constant column becomes zero. Its range is compared with 0 because its deviation may be a rounding error
    std = np.where(np.ptp(encoded, 0) == 0, 1.0, encoded.std(0))
    return Table(
        task,
        target,
        classes,
        columns=columns,
        mean=encoded.mean(0).tolist(),
        std=std.tolist(),
        target_mean=target_mean,
        target_std=target_std,
    )


def encode(frame: "DataFrame", columns: list[Column]) -> np.ndarray:
    """Return (rows, features) float64: numbers unchanged, categories one-hot encoded.

    Raises:
      ValueError: for missing columns, missing and infinite values, text in columns of numbers, and unknown categories.
    """
    missing = [column.name for column in columns if column.name not in frame]
    if missing:
        raise ValueError(f"missing columns: {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}")
    parts = []
    for column in columns:
        values = frame[column.name]
        check_complete(values)
        if column.categories is None:
            parts.append(_numbers(values).to_numpy(np.float64)[:, None])
            continue
        text = values.astype(str).to_numpy()
        unknown = sorted(set(text) - set(column.categories))
        if unknown:
            raise ValueError(
                f"column {column.name!r}: {unknown[0]!r} is not among the categories in training, "
                f"{', '.join(column.categories[:5])}{' …' if len(column.categories) > 5 else ''}"
            )
        parts.append(text[:, None] == np.array(column.categories, dtype=object)[None])
    return _finite(np.concatenate(parts, axis=1).astype(np.float64))


def _is_numeric(column: "Series[Any]") -> bool:
    return column.dtype.kind in "iuf"


def _numbers(column: "Series[Any]") -> "Series[Any]":
    if len(column) and not _is_numeric(column):
        row = _first_text(column)
        raise ValueError(f"column {column.name!r} must hold numbers, got {str(column.iloc[row])!r} in row {row}")
    return column


def _first_text(column: "Series[Any]") -> int:
    """Return the first row that is not a number, such as a ? in a column of numbers; 0 if there is none."""
    for row, text in enumerate(column.astype(str)):
        try:
            float(text)
        except ValueError:
            return row
    return 0


def _finite(numbers: np.ndarray, where: str = "", what: str = "an infinite number") -> np.ndarray:
    infinite = ~np.isfinite(numbers)
    if infinite.any():
        raise ValueError(f"{where}row {int(np.argwhere(infinite)[0][0])} holds {what}")
    return numbers


def check_complete(column: "Series[Any]") -> None:
    """Check that no value is missing.

    Raises:
      ValueError: if values are missing; the message has their number and the first row.
    """
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"column {column.name!r}: {int(missing.sum())} values are missing, the first in row "
            f"{int(missing.argmax())}; fill them or drop the rows"
        )


def _categories(column: "Series[Any]") -> list[str] | None:
    if _is_numeric(column):
        return None
    names = sorted(set(column.astype(str)))
    if len(names) > MOST_CATEGORIES or len(names) == len(column):
        row = _first_text(column)
        raise ValueError(
            f"column {column.name!r} holds {len(names)} distinct texts in {len(column)} rows, "
            f"for example {str(column.iloc[row])!r} in row {row}; drop the column or convert it to numbers"
        )
    return names
