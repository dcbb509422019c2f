"""Find columns and values of a table that make results misleading: row numbers and outliers."""

import math
from collections.abc import Iterator

import numpy as np

from nnjax.data._frame import Frame
from nnjax.data._problems import line_numbers
from nnjax.data.table import Table, column_numbers

FEW_ROWS = 20  # in smaller tables, numbers may be in ascending order by chance
FAR = 10  # interquartile ranges beyond the quartiles
UNNAMED = "Unnamed: 0"
LISTED = 3  # largest number of values to list


def index_column(frame: Frame) -> str | None:
    """Return the name of an unnamed first column of row numbers, as pandas writes its index, or None."""
    if UNNAMED not in frame:
        return None
    values = np.asarray(frame[UNNAMED])
    counts = values.dtype.kind in "iu" and (np.diff(values) == 1).all()
    return UNNAMED if counts or _numbers_rows(values) else None


def warnings_about(frame: Frame, table: Table, lines: np.ndarray | None = None) -> Iterator[str]:
    """Yield a sentence for each feature that looks like a row number, and one for outliers."""
    line = line_numbers(lines)
    if any(column.name == UNNAMED for column in table.columns):
        yield f"the first column has no name; if it numbers the rows, leave it out with --drop {UNNAMED!r}"
    for column in table.columns:
        if column.kind == "number" and _numbers_rows(np.asarray(frame[column.name])):
            yield (
                f"column {column.name!r} looks like a row number: its numbers are different in all "
                f"{len(frame[column.name])} rows and follow their order, or leave no gaps; leave it out with --drop "
                f"{column.name}, or drop=[{column.name!r}] in Python"
            )
    names = [column.name for column in table.columns if column.kind == "number"]
    if table.task == "regression":
        names += table.target_names
    far = [(name, row, value) for name in names for row, value in _far_outside(column_numbers(frame, name))]
    if far:
        listed = ", ".join(f"{value:g} in {line(row)} of {name!r}" for name, row, value in far[:LISTED])
        others = f" and {len(far) - LISTED} more" if len(far) > LISTED else ""
        yield (
            f"{len(far)} value{'s are' if len(far) > 1 else ' is'} more than {FAR} interquartile ranges outside of "
            f"the quartiles: {listed}{others}; check them, because one such value can decide a fit"
        )


def _numbers_rows(values: np.ndarray) -> bool:
    """Return True for numbers that are different in all rows and ascend or descend, or are integers without gaps."""
    if values.dtype.kind not in "iuf" or len(values) < FEW_ROWS or not np.isfinite(values).all():
        return False
    numbers = values.astype(np.float64)
    if (numbers[1:] > numbers[:-1]).all() or (numbers[1:] < numbers[:-1]).all():
        return True
    whole = (numbers == np.floor(numbers)).all() and len(np.unique(numbers)) == len(numbers)
    return bool(whole and numbers.max() / 2 - numbers.min() / 2 < len(numbers))  # halves cannot overflow


def _far_outside(values: np.ndarray) -> Iterator[tuple[int, float]]:
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = np.quantile(values[~np.isnan(values)], [0.25, 0.75])
        reach = FAR * (high - low)
        far = (values < low - reach) | (values > high + reach)
    if reach > 0 and math.isfinite(reach):
        for row in np.flatnonzero(far).tolist():
            yield row, float(values[row])
