"""CSV files: every field is read as text, and the kind of a column is decided once, over all its rows."""

import csv
import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nnjax.storage.paths import open_regular

# "category" is text by request: numbers and NA are then categories too, and only an empty field is missing
Kind = Literal["number", "text", "category"]

MOST_COLUMNS = 2**20
LONGEST_NAME, LONGEST_QUOTE = 1000, 100  # characters
LONGEST_LINE = 2**24  # characters; a file without line ends would otherwise be read into one text
BLOCK = 2**14  # rows that are Python lists at the same time
EXACT = 2**53  # float64 holds all integers up to this one
STRINGS = np.dtypes.StringDType()
MISSING = frozenset(("", "#N/A", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "-nan", "-NaN", "null"))
# In a valid file, such a text in quotes is always a whole field: inside another field, quotes are doubled
QUOTED = re.compile(rf'(^|,) *"\s*({"|".join(filter(None, sorted(MISSING)))})\s*"(?=[,\r\n]|$)')
MARK = "\0"  # the first character of a field that is one of MISSING in quotes; files that hold it are refused


def read_csv(path: Path) -> dict[str, np.ndarray]:
    """Return the fields (rows,) of each column as texts, for `parse_column`.

    Raises:
      FileNotFoundError, OSError: if the file does not exist or cannot be opened.
      ValueError: if the file is not CSV in UTF-8, if a row has more or fewer values than the header, and if two columns
        have the same name; the message names the path.
    """
    with open_file(path) as opened, io.TextIOWrapper(opened, encoding="utf-8-sig", newline="") as text:
        rows = csv.reader(_lines(text), skipinitialspace=True, strict=True)
        try:
            names = _names(path, next(rows, []))
            checked = _rows(rows, len(names))
            blocks = iter(lambda: list(islice(checked, BLOCK)), [])
            parts = [[np.array(column, STRINGS) for column in zip(*block, strict=True)] for block in blocks]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not text in UTF-8; save it in this encoding ({error.reason})") from None
        except (csv.Error, _RowError) as error:
            raise ValueError(f"{path} cannot be read as CSV: line {rows.line_num}: {error}") from None
    if not parts:
        return {name: np.array([], STRINGS) for name in names}
    return {name: np.concatenate(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)}


def open_file(path: Path) -> io.BufferedReader:
    """Open a regular file; see `open_regular`."""
    try:
        return open_regular(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {path}") from None


def parse_column(name: str, fields: np.ndarray, kind: Kind | None) -> np.ndarray:
    """Return the values of a column: int64 or float64 with NaN where missing, or texts with None where missing.

    Args:
      name: the name of the column, for messages.
      fields: (rows,), from `read_csv`.
      kind: the kind of the column; None to decide it. A column whose values are all numbers holds numbers, unless
        integers would lose digits as float64.

    Raises:
      ValueError: for a text in a column of numbers; the message has the row.

    Warns:
      UserWarning: if the kind is decided and numbers are written with leading zeros, because they may be codes.
    """
    if kind in (None, "number"):
        numbers = _parse_numbers(fields)
        if kind is None and numbers is not None and (code := _leading_zero(fields)) is not None:
            warnings.warn(
                f"column {name!r} is read as numbers, but {code!r} has leading zeros; if it holds codes, make it "
                "categorical",
                stacklevel=2,
            )
        if numbers is not None:
            return numbers
    if kind == "number":
        raise ValueError(f"column {name!r} must hold numbers, got {describe_text(fields)}")
    return _each(fields, lambda field: _meaning(field, kind))


def clean_text(text: str) -> str:
    """Return a category without the spaces around it, and with one spelling of accents and of booleans."""
    text = unicodedata.normalize("NFC", text).strip()
    return text.capitalize() if text.lower() in ("true", "false") else text


def describe_text(fields: np.ndarray) -> str:
    """Return the first field that is not a number, and its row; the last field if all are numbers."""
    low, high = 0, len(fields)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _parse_numbers(fields[low:middle]) is None else (middle, high)
    return f"{quote(fields[low].removeprefix(MARK))} in row {low}"


def quote(text: str) -> str:
    """Return the text, or its start, in quotes for a message."""
    return repr(text) if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]!r}…"


class _RowError(Exception):
    """A row does not fit the header."""


def _lines(file: io.TextIOWrapper) -> Iterator[str]:
    """Return the lines, with a mark in each text in quotes that would otherwise mean a missing value."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise _RowError(f"more than {LONGEST_LINE:,} characters")
        if MARK in line:
            raise _RowError("a NUL character; save the file in UTF-8")
        yield QUOTED.sub(rf'\1"{MARK}\2"', line) if '"' in line else line


def _names(path: Path, header: list[str]) -> list[str]:
    """Return the names of the columns."""
    if not header:
        raise _RowError("no columns; the first line must name them")
    if len(header) > MOST_COLUMNS:
        raise _RowError(f"{len(header):,} columns, at most {MOST_COLUMNS:,} are read")
    if max(map(len, header)) > LONGEST_NAME:
        raise _RowError(f"a name of {max(map(len, header)):,} characters, at most {LONGEST_NAME:,} are read")
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise ValueError(f"{path}: only one column, {quote(header[0])}; separate the values by commas")
    names = [name.lstrip(MARK).strip() or f"Unnamed: {i}" for i, name in enumerate(header)]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{path}: two columns are named {name!r}; rename or drop one of them")
        seen.add(name)
    return names


def _rows(reader: Iterator[list[str]], width: int) -> Iterator[list[str]]:
    """Return the rows without empty lines. In a file of one column, an empty line between rows is a missing value."""
    empty = 0
    for row in reader:
        if not row:
            empty += 1
            continue
        if width == 1:
            yield from [[""]] * empty
        if len(row) != width:
            raise _RowError(f"{len(row)} values, but the header has {width} names")
        yield row
        empty = 0


def _parse_numbers(fields: np.ndarray) -> np.ndarray | None:
    """Return int64, float64 with NaN where missing, or None if a field is text or an integer would lose digits."""
    if (np.strings.find(fields, "_") >= 0).any():  # Python reads 1_000 as a number
        return None
    try:
        return fields.astype(np.int64)
    except (ValueError, OverflowError):
        pass
    try:
        numbers = fields.astype(np.float64)
    except ValueError:
        missing = _each(fields, lambda field: _meaning(field, "number") is None).astype(bool)
        present = _parse_numbers(fields[~missing]) if missing.any() else None
        if present is None:
            return None
        numbers = np.full(len(fields), np.nan)
        numbers[~missing] = present
        return numbers
    large = np.flatnonzero(np.abs(numbers) >= EXACT)
    return None if any(_loses_digits(fields[row], numbers[row]) for row in large) else numbers


def _loses_digits(text: str, number: float) -> bool:
    """Return True if the text is an integer that float64 cannot represent."""
    digits = text.strip().lstrip("+-")
    return digits.isdecimal() and (len(digits) > 400 or int(digits) != abs(float(number)))


def _leading_zero(fields: np.ndarray) -> str | None:
    """Return the first field such as 01 or 007, or None."""
    zero = np.strings.startswith(fields, "0") & ~np.strings.startswith(fields, "0.") & (np.strings.str_len(fields) > 1)
    return next((field for field in fields[zero].tolist() if field[1].isdecimal()), None)


def _meaning(field: str, kind: Kind | None) -> str | None:
    """Return the text of a field; None if it is missing."""
    text = clean_text(field.removeprefix(MARK))
    missing = not text or (text in MISSING and kind != "category" and not field.startswith(MARK))
    return None if missing else text


def _each(fields: np.ndarray, function: Callable[[str], Any]) -> np.ndarray:
    """Return the function's value for each field, computed once for equal fields."""
    listed = fields.tolist()
    values = {field: function(field) for field in set(listed)}
    return np.array([values[field] for field in listed], object)
