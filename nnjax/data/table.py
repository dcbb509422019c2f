"""Tables: how the rows of a CSV or NPZ file become numbers, fitted on the training rows alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame, Series

Task = Literal["classification", "regression"]
MOST_CLASSES = 20  # integers of more different values than this are numbers, not labels
MOST_CATEGORIES = 100


class Column(NamedTuple):
    """A column of the file: a number, or one of some categories, each of which becomes a 0 or 1 of its own."""

    name: str
    categories: list[str] | None


class Table(NamedTuple):
    """How rows become numbers and predictions become answers; plain values, to be stored with a run."""

    task: Task
    target: str
    classes: list[str]  # names of the labels 0, 1, …; empty for regression
    columns: list[Column]
    mean: list[float]  # of each feature, subtracted
    std: list[float]  # of each feature, divided by
    target_mean: float = 0.0  # of a regression's target
    target_std: float = 1.0

    def features(self, frame: "DataFrame") -> np.ndarray:
        """Standardised features (rows, features), float32.

        Raises:
          ValueError: for columns that are missing or hold what they did not hold in training.
        """
        encoded = encode(frame, self.columns)
        return ((encoded - np.array(self.mean)) / np.array(self.std)).astype(np.float32)

    def targets(self, frame: "DataFrame") -> np.ndarray:
        """Labels (rows,) int32, or standardised numbers (rows, 1) float32."""
        column = frame[self.target]
        if self.task == "regression":
            numbers = _numbers(column).to_numpy(np.float64)
            return ((numbers - self.target_mean) / self.target_std).astype(np.float32)[:, None]
        labels = _text(column)
        unknown = sorted(set(labels) - set(self.classes))
        if unknown:
            raise ValueError(f"column {self.target!r}: {unknown[0]!r} was not among the classes {self.classes}")
        return labels.map({name: i for i, name in enumerate(self.classes)}).to_numpy(np.int32)


def read_table(path: Path) -> "DataFrame":
    """A CSV file with a header, or the arrays `x` and `y` of an NPZ file as columns `x0`, `x1`, … and `y`.

    Raises:
      FileNotFoundError, ValueError: with the path.
      ModuleNotFoundError: without pandas.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("reading tables needs pandas: pip install 'nnjax[cli]'") from error
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    if path.suffix.lower() != ".npz":
        try:
            return pd.read_csv(path, skipinitialspace=True)
        except (ValueError, UnicodeDecodeError) as error:  # pandas' parser errors are ValueErrors
            raise ValueError(f"{path} cannot be read as CSV: {error}") from error
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as NPZ (arrays of objects are refused): {error}") from error
    if "x" not in arrays:
        raise ValueError(f"{path}: an array named x is needed (rows, ...), found {sorted(arrays) or 'nothing'}")
    x = arrays["x"]
    if x.ndim == 0 or ("y" in arrays and arrays["y"].shape not in ((len(x),), (len(x), 1))):
        raise ValueError(f"{path}: y must have one entry for each row of x, x is {x.shape}, y {arrays['y'].shape}")
    flat = x.reshape(len(x), -1)
    frame = pd.DataFrame(flat, columns=[f"x{i}" for i in range(flat.shape[1])])
    if "y" in arrays:
        frame["y"] = arrays["y"].reshape(-1)
    return frame


def choose_task(column: "Series[Any]", task: Task | None = None) -> tuple[Task, str]:
    """Classification or regression, and the reason in words."""
    from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype

    different = int(column.nunique())
    if task is not None:
        return task, "as asked for"
    if is_bool_dtype(column) or not is_numeric_dtype(column):
        return "classification", f"{column.name!r} holds text or booleans, {different} different"
    if is_integer_dtype(column) and different <= MOST_CLASSES:
        return "classification", f"{column.name!r} holds {different} different integers"
    return "regression", f"{column.name!r} holds {different} different numbers"


def fit_table(frame: "DataFrame", target: str, task: Task) -> Table:
    """How rows become numbers, read off the training rows.

    Raises:
      ValueError: for missing values, columns with a category for almost every row, one class only.
    """
    column = frame[target]
    _complete(column)
    columns = []
    for name in frame.columns:
        if name == target:
            continue
        _complete(frame[name])
        columns.append(Column(str(name), _categories(frame[name])))
    if not columns:
        raise ValueError(f"no columns besides the target {target!r}")
    encoded = encode(frame, columns)
    mean, std = encoded.mean(0), encoded.std(0)
    classes: list[str] = []
    target_mean, target_std = 0.0, 1.0
    if task == "classification":
        classes = [str(name) for name in sorted(column.unique())] if _is_numeric(column) else sorted(set(_text(column)))
        if len(classes) < 2:
            raise ValueError(f"column {target!r} holds one class only, {classes[0]!r}: there is nothing to tell apart")
    else:
        numbers = _numbers(column).to_numpy(np.float64)
        target_mean, target_std = float(numbers.mean()), float(numbers.std()) or 1.0
    # A constant column stays constant, at zero
    return Table(task, target, classes, columns, mean.tolist(), np.where(std == 0, 1.0, std).tolist(), target_mean, target_std)


def encode(frame: "DataFrame", columns: list[Column]) -> np.ndarray:
    """Numbers as they are, categories as a 0 or 1 each: (rows, features) float64."""
    missing = [column.name for column in columns if column.name not in frame]
    if missing:
        raise ValueError(f"columns are missing: {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}")
    parts = []
    for column in columns:
        values = frame[column.name]
        _complete(values)
        if column.categories is None:
            parts.append(_numbers(values).to_numpy(np.float64)[:, None])
            continue
        text = _text(values).to_numpy()
        unknown = sorted(set(text) - set(column.categories))
        if unknown:
            raise ValueError(
                f"column {column.name!r}: {unknown[0]!r} is not among the categories seen in training, "
                f"{', '.join(column.categories[:5])}{' …' if len(column.categories) > 5 else ''}"
            )
        parts.append(text[:, None] == np.array(column.categories, dtype=object)[None])
    numbers = np.concatenate(parts, axis=1).astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"row {int(np.argwhere(~np.isfinite(numbers))[0][0])} holds an infinite number")
    return numbers


def _is_numeric(column: "Series[Any]") -> bool:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return bool(is_numeric_dtype(column)) and not bool(is_bool_dtype(column))


def _text(column: "Series[Any]") -> "Series[Any]":
    return column.astype(str)


def _numbers(column: "Series[Any]") -> "Series[Any]":
    if not _is_numeric(column):
        raise ValueError(f"column {column.name!r} must hold numbers, got {column.iloc[0]!r} in row 0")
    return column


def _complete(column: "Series[Any]") -> None:
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"column {column.name!r}: {int(missing.sum())} values are missing, the first in row "
            f"{int(missing.argmax())}; fill them or drop the rows"
        )


def _categories(column: "Series[Any]") -> list[str] | None:
    if _is_numeric(column):
        return None
    names = sorted(set(_text(column)))
    if len(names) > MOST_CATEGORIES:
        raise ValueError(
            f"column {column.name!r} holds {len(names)} different texts in {len(column)} rows; "
            "drop it or encode it as numbers"
        )
    return names
