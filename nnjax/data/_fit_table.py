"""Choose the task of a table, and fit its encoding to the training rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnjax.data._csv import quote
from nnjax.data._frame import Frame, as_texts, column_values, is_numeric, missing_rows
from nnjax.data._kinds import Column, Kind, count_texts, first_text
from nnjax.data._numbers import STRINGS
from nnjax.data._problems import Line, Problem, TableError, line_numbers, missing_values
from nnjax.data.table import Missing, Table, Target, Task, column_numbers, encode, feature_names, inexact_rows

MOST_CLASSES = 20  # an integer target with more distinct values contains numbers, not labels
LEAST_IN_A_CLASS = 3  # an integer target with fewer rows per value, on average, and over 2 values contains numbers
MOST_CATEGORIES = 100
LEAST_STD = 1e-30  # smallest standard deviation of a target; errors in the target's units must fit into float32
DAY, SECOND = "%Y-%m-%d", "%Y-%m-%d %H:%M:%S"  # the formats of dates in memory


def choose_task(
    frame: Frame, name: str, task: Task | None = None, *, lines: np.ndarray | None = None
) -> tuple[Task, str]:
    """Return the task and a reason in words. If `task` is None, infer it from the values of the target.

    Raises:
      ValueError: if `task` is None, the target contains text or dates, and more than half of these are distinct.
    """
    values, line = column_values(frame, name), line_numbers(lines)
    distinct = len(set(values.tolist()))
    if task is not None:
        return task, "task was set"
    if not is_numeric(values):
        if distinct > max(len(values) / 2, 2):
            if nearly := nearly_numbers(name, as_texts(values), line):
                raise TableError([nearly])
            example, row = _example(as_texts(values))
            raise ValueError(
                f"column {name!r} holds {distinct} distinct {'dates' if values.dtype.kind == 'M' else 'texts'} in "
                f"{len(values)} rows, for example {quote(example)} in {line(row)}; as a target, classes "
                "need more rows each, and a regression needs numbers"
            )
        return "classification", f"{name!r} holds text or booleans, {distinct} distinct values"
    if values.dtype.kind in "iu" and distinct <= min(MOST_CLASSES, max(2, len(values) / LEAST_IN_A_CLASS)):
        return "classification", f"{name!r} holds {distinct} distinct integers"
    return "regression", f"{name!r} holds {distinct} distinct numbers"


def find_problems(
    frame: Frame, targets: Sequence[str], columns: Mapping[str, Column], missing: Missing, lines: np.ndarray | None
) -> list[Problem]:
    """Return the problems of a table, one for each column that cannot be used."""
    line = line_numbers(lines)
    problems = []
    for name in frame:
        values = column_values(frame, name)
        gaps = missing_rows(values)
        if gaps.any() and (missing == "error" or gaps.all()):
            words = ("words",) if values.dtype == object else ()
            remedies: Any = ("target", *words) if name in targets else ("missing", *words, "drop")
            if gaps.all():
                remedies = () if name in targets else ("drop",)
            problem = missing_values(name, gaps, line)._replace(remedies=remedies)
            if words and not gaps.all() and (nearly := nearly_numbers(name, values, line)) is not None:
                remedies = tuple("na" if remedy == "words" else remedy for remedy in remedies)
                problem = nearly._replace(text=f"{problem.text}; {nearly.text}", remedies=remedies)
            problems.append(problem)
        elif is_numeric(values):
            if name not in targets or values.dtype.kind == "f":  # integer targets may be class labels of any size
                problems += _number_problems(name, values, line)
        elif name not in targets and values.dtype != "M8[us]":
            problems += _text_problems(name, values, columns, line)
    return problems


def _number_problems(name: str, values: np.ndarray, line: Line) -> list[Problem]:
    infinite = np.flatnonzero(np.isinf(values))
    if infinite.size:
        return [Problem(name, f"{line(int(infinite[0]))} holds an infinite number")]
    inexact = inexact_rows(values)
    if inexact.size:
        row = int(inexact[0])
        text = f"{values[row]} in {line(row)} has more digits than a float64 number holds"
        return [Problem(name, text, ("drop", "categorical"))]
    return []


def _text_problems(name: str, values: np.ndarray, columns: Mapping[str, Column], line: Line) -> list[Problem]:
    """Return a list with one problem if a column has too many distinct strings for categories, else an empty list."""
    texts = [text for text in values.tolist() if text is not None]
    distinct = len(set(texts))
    is_categorical = name in columns and columns[name].kind == "category"
    if not (distinct == len(texts) or (distinct > MOST_CATEGORIES and not is_categorical)):
        return []
    if nearly := nearly_numbers(name, values, line):
        return [nearly]
    example, row = _example(values)
    text = f"{distinct} distinct strings in {len(texts)} rows, for example {quote(example)} in {line(row)}"
    return [Problem(name, text, ("drop",) if distinct == len(texts) else ("categorical", "drop"))]


def nearly_numbers(name: str, values: np.ndarray, line: Line) -> Problem | None:
    """Return a problem if at least 90 % of the values of a column are numbers, else None."""
    texts = [text for text in values.tolist() if text is not None]
    numbers = len(texts) - count_texts(texts)
    if numbers < 0.9 * len(texts):
        return None
    text, row = _example(values)
    sentence = f"{numbers} of {len(texts)} values are numbers, but {quote(text)} in {line(row)} is not"
    return Problem(name, sentence, ("na", "drop"), text)


def _example(values: np.ndarray) -> tuple[str, int]:
    """Return the first string that is not a number, and its row."""
    return first_text(np.array(["" if value is None else str(value) for value in values.tolist()], STRINGS))


def fit_table(
    frame: Frame,
    targets: str | Sequence[str],
    task: Task,
    training: np.ndarray,
    *,
    columns: Mapping[str, Column] | None = None,
    missing: Missing = "error",
    na: Sequence[str] = (),
    lines: np.ndarray | None = None,
) -> Table:
    """Fit the encoding of a table to its rows.

    Classes and categories come from all rows, because some might not occur in the training rows. Means, standard
    deviations and the fill values for missing values come from the training rows.

    Args:
      frame: all rows.
      targets: the column to predict; for regression, there may be several.
      task: classification or regression.
      training: row numbers of the training part.
      columns: kinds and formats of the columns of a file; None if the columns are in memory.
      missing: treatment of missing values; see `load`.
      na: strings that mark missing values, in addition to the usual ones.
      lines: (rows,) the line of each row in its file, for messages.

    Raises:
      TableError: a ValueError, if columns cannot be used, for example because of missing values, infinite numbers or
        too many distinct strings; the message lists all such columns.
      ValueError: if the targets are the only columns, if a target is constant or has a single class, if a target of a
        regression is text, or if its scale does not fit into float32.
    """
    names = [targets] if isinstance(targets, str) else list(targets)
    file_columns = columns or {}
    if problems := find_problems(frame, names, file_columns, missing, lines):
        raise TableError(problems)
    fitted = [_fit_column(frame, name, file_columns.get(name), missing) for name in frame if name not in names]
    if not fitted:
        raise ValueError(f"the target {','.join(names)!r} is the only column; at least one more is needed")
    encoded, gaps = encode(frame, fitted, lines)
    encoded = encoded[training]
    fill = None
    if gaps:
        fill = _fill(encoded, fitted, missing)
        encoded = np.where(np.isnan(encoded), fill, encoded)
    mean, std = _moments(encoded)
    table = Table(task, ",".join(names), [], fitted, mean=mean.tolist(), std=std.tolist(), missing=missing)
    table = table._replace(na=list(na) or None, fill=None if fill is None else fill.tolist())
    if names[0] in file_columns:
        table = table._replace(target_decimal=file_columns[names[0]].decimal)
    if task == "classification":
        return _with_classes(table, column_values(frame, names[0]), file_columns.get(names[0]))
    table = table._replace(target_kind="number")
    scales = [Target(name, *_target_moments(name, column_numbers(frame, name, lines)[training])) for name in names]
    if len(scales) > 1:
        return table._replace(several=scales)
    return table._replace(target_mean=scales[0].mean, target_std=scales[0].std)


def _fit_column(frame: Frame, name: str, file_column: Column | None, missing: Missing) -> Column:
    """Return a column with its categories or its date format."""
    values = column_values(frame, name)
    column = file_column or Column(str(name), _kind(values))
    if column.kind == "date" and not column.date:
        whole = values.astype("datetime64[D]") == values
        column = column._replace(date=DAY if (whole | np.isnat(values)).all() else SECOND)
    if column.kind in ("number", "date"):
        return column
    texts = as_texts(values)
    counts = Counter(text for text in texts if text is not None)
    categories = sorted(counts)
    if len(categories) > MOST_CATEGORIES:
        categories = sorted(["", *(text for text, _ in counts.most_common(MOST_CATEGORIES))])
        return column._replace(categories=categories, rare=True)
    if missing == "category" and missing_rows(values).any():
        categories = ["", *categories]
    return column._replace(categories=categories)


def _kind(values: np.ndarray) -> Kind:
    return "number" if is_numeric(values) else "date" if values.dtype.kind == "M" else "text"


def _fill(encoded: np.ndarray, columns: Sequence[Column], missing: Missing) -> np.ndarray:
    """Return each feature's fill value: the mean, or the median for numbers if `missing` is "median" or "category"."""
    numbers = np.array([column.kind == "number" for column in columns for _ in feature_names(column)])
    present = np.ma.masked_invalid(encoded)
    fill = present.mean(0).filled(0.0)
    if missing in ("median", "category"):
        fill = np.where(numbers, _median(present), fill)
    return np.asarray(fill)


def _median(present: np.ma.MaskedArray[Any, Any]) -> np.ndarray:
    return np.array([np.median(column.compressed()) if column.count() else 0.0 for column in present.T])


def _with_classes(table: Table, values: np.ndarray, file_column: Column | None) -> Table:
    kind = file_column.kind if file_column is not None and file_column.kind != "date" else _kind(values)
    labels = values if is_numeric(values) else as_texts(values)
    distinct: list[Any] = sorted(set(labels.tolist()))  # sorts numbers by value, not as text
    if len(distinct) < 2:
        raise ValueError(
            f"column {table.target!r} holds only one class, {quote(str(distinct[0]))}; a classifier needs at least two "
            "classes"
        )
    return table._replace(classes=[str(label) for label in distinct], target_kind="text" if kind == "date" else kind)


def _target_moments(name: str, numbers: np.ndarray) -> tuple[float, float]:
    """Return the mean and standard deviation of a target; raise ValueError if it cannot be standardised."""
    if (numbers == numbers[0]).all():
        raise ValueError(f"column {name!r} is {numbers[0]:g} in all rows; the target must vary")
    mean, std = (float(moment) for moment in _moments(numbers))
    if not LEAST_STD < std < 1 / LEAST_STD:
        raise ValueError(
            f"column {name!r} has the standard deviation {std:g}; predictions are float32, so scale the target"
        )
    return mean, std


def _moments(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means and standard deviations over the rows, with a deviation of 1 for constant columns."""
    # Scaling by powers of two is exact and avoids overflow and underflow: 1e300² is infinite, 1e-300² is zero
    exponent = np.frexp(np.abs(numbers).max(0))[1]
    scaled = np.ldexp(numbers, -exponent)
    # Detect constant columns by their range, because rounding may make their standard deviation positive
    std = np.where(np.ptp(scaled, 0) == 0, 1.0, np.ldexp(scaled.std(0), exponent))
    return np.ldexp(scaled.mean(0), exponent), std
