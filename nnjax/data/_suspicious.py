"""Find row numbers, identifiers and outliers in a table, which can make its results misleading."""

import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from nnjax.data._frame import Frame
from nnjax.data._problems import line_numbers
from nnjax.data.table import Table, column_numbers, list_names

FEW_ROWS = 20  # in tables with fewer rows, numbers may be in ascending order by chance
MANY_ROWS = 50  # in tables with fewer rows, integers such as incomes are often all different
FAR = 10  # values more than this many interquartile ranges beyond the quartiles are outliers
UNNAMED = "Unnamed: 0"
LISTED = 3  # maximum number of values to list
TAIL = 0.01  # if a larger share of the rows are outliers, they are the tail of a distribution
IDENTIFIER = r"(?:^|[^A-Za-z])(?:id|ID|Id)(?:$|[^A-Za-z])|[a-z]I[dD]$"


def describe_index(frame: Frame) -> str | None:
    """Return the reason why an unnamed first column is an index, as pandas and R write it, or None if it is not."""
    if UNNAMED not in frame:
        return None
    values = np.asarray(frame[UNNAMED])
    integers = values.dtype.kind in "iu"
    if (integers and (np.diff(values) == 1).all()) or _numbers_rows(values):
        return "numbers the rows"
    listed = values.tolist()
    if (integers or values.dtype == object) and None not in listed and len(set(listed)) == len(listed) > 2:
        return f"holds a different {'number' if integers else 'string'} in each row"
    return None


def warnings_about(frame: Frame, table: Table, lines: np.ndarray | None = None) -> Iterator[str]:
    """Yield a warning for each column that looks like a row number, for all identifiers, and for outliers."""
    if any(column.name == UNNAMED for column in table.columns):
        yield f"the first column has no name; if it numbers the rows, leave it out with --drop {UNNAMED!r}"
    numbers = [column.name for column in table.columns if column.kind == "number"]
    identifiers = []
    for name in numbers:
        values = np.asarray(frame[name])
        if _numbers_rows(values):
            noun, order = ("row number", "are in order, or have few gaps")
            if not _whole(values):
                noun, order = ("row number or a time", "rise or fall from row to row")
            yield (
                f"column {name!r} looks like a {noun}: its numbers are different in all {len(values)} rows and "
                f"{order}; leave it out with --drop {name}, or drop=[{name!r}] in Python"
            )
        elif _identifies_rows(name, values):
            identifiers.append(name)
    if identifiers:
        several = len(identifiers) > 1
        yield (
            f"{'columns' if several else 'column'} {list_names([repr(name) for name in identifiers])} "
            f"{'hold' if several else 'holds'} integers that are different in all or most rows, as identifiers are; "
            f"leave out the columns that are identifiers with --drop {identifiers[0]}, or drop=[{identifiers[0]!r}] "
            "in Python"
        )
    far = _describe_far([*numbers, *(table.target_names if table.task == "regression" else [])], frame, lines)
    yield from far


def _describe_far(names: Sequence[str], frame: Frame, lines: np.ndarray | None) -> Iterator[str]:
    """Describe the outliers: in a long tail only their number and the farthest, otherwise each value."""
    line = line_numbers(lines)
    single, tails = [], []
    for name in names:
        values = column_numbers(frame, name)
        far = list(_far_outside(values))
        if len(far) > max(LISTED, TAIL * len(values)):
            row, value = max(far, key=lambda pair: abs(pair[1] - np.nanmedian(values)))
            tails.append(f"{name!r} ({len(far)} values, the farthest {value:g} in {line(row)})")
        else:
            single += [f"{value:g} in {line(row)} of {name!r}" for row, value in far]
    outside = f"more than {FAR} interquartile ranges outside of the quartiles"
    if single:
        others = f" and {len(single) - LISTED} more" if len(single) > LISTED else ""
        yield (
            f"{len(single)} value{'s are' if len(single) > 1 else ' is'} {outside}: {', '.join(single[:LISTED])}"
            f"{others}; check them, because one such value can dominate a fit"
        )
    if tails:
        yield f"long tails, with values {outside}: {list_names(tails)}; the few largest values can dominate a fit"


def _numbers_rows(values: np.ndarray) -> bool:
    """Return True for 20 or more numbers that strictly increase or decrease, or are distinct integers with few gaps.

    Few gaps means that the integers fill at least half of their range.
    """
    if values.dtype.kind not in "iuf" or len(values) < FEW_ROWS or not np.isfinite(values).all():
        return False
    numbers = values.astype(np.float64)
    if (numbers[1:] > numbers[:-1]).all() or (numbers[1:] < numbers[:-1]).all():
        return True
    distinct = len(np.unique(numbers)) == len(numbers)
    # Subtract halves, because the difference itself could overflow
    return bool(_whole(values) and distinct and numbers.max() / 2 - numbers.min() / 2 < len(numbers))


def _identifies_rows(name: str, values: np.ndarray) -> bool:
    """Return True for integers that differ in all of many rows or, if the name suggests an identifier, in most rows."""
    if values.dtype.kind not in "iu" or len(values) < FEW_ROWS:
        return False
    share = len(np.unique(values)) / len(values)
    named = share > 0.5 and re.search(IDENTIFIER, name) is not None
    return named or (share == 1 and len(values) >= MANY_ROWS)


def _whole(values: np.ndarray) -> bool:
    return bool((values == np.floor(values)).all())


def _far_outside(values: np.ndarray) -> Iterator[tuple[int, float]]:
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = np.quantile(values[~np.isnan(values)], [0.25, 0.75])
        reach = FAR * (high - low)
        far = (values < low - reach) | (values > high + reach)
    if reach > 0 and math.isfinite(reach):
        for row in np.flatnonzero(far).tolist():
            yield row, float(values[row])
