"""Read the fields of CSV files as strings, with the line number of each row."""

import codecs
import csv
import gzip
import io
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnjax.data._numbers import STRINGS
from nnjax.storage.paths import open_regular

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
SEPARATORS = (",", ";", "\t", "|")  # spaces are tried last, because most files contain spaces in strings
MOST_COLUMNS = 2**20
LONGEST_NAME, LONGEST_QUOTE = 1000, 100  # characters
LONGEST_LINE = 2**24  # characters; otherwise a file without line breaks would be read as one line
BLOCK = 2**14  # maximum number of rows in Python lists at the same time
SNIFFED = 2**16  # characters from which the separator is detected
MISSING = frozenset(("", "#N/A", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "-nan", "-NaN", "null"))
MARK = "\0"  # marks a quoted word such as "NA", which is not a missing value; files with this character are rejected


class Fields(NamedTuple):
    """The fields of a CSV file, as strings."""

    columns: dict[str, np.ndarray]  # (rows,) strings
    lines: np.ndarray  # (rows,) the line on which each row begins, counted from 1
    separator: str
    repeated: frozenset[str] = frozenset()  # names of several columns; `columns` holds the last one of each


def read_csv(path: Path, separator: str | None = None) -> Fields:
    """Return the fields of a CSV file, which may be compressed with gzip.

    Args:
      path: path of the file, in UTF-8, in UTF-16 with a byte-order mark, or else in Windows-1252.
      separator: the character between two fields; None reads it from a first line such as sep=; or detects a comma,
        semicolon, tab, vertical bar or spaces.

    Raises:
      FileNotFoundError, OSError: if the file does not exist or cannot be opened.
      ValueError: if the file is damaged, is not CSV or has no header, or if the number of values in a row is wrong; the
        message gives the path.

    Warns:
      UserWarning: if the file is read as Windows-1252.
    """
    try:
        return _read(path, separator, "utf-8-sig")
    except UnicodeDecodeError as error:
        encoding = "utf-16" if _start(path).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "cp1252"
        refusal = ValueError(f"{path} is not text in UTF-8; save it in this encoding ({error.reason})")
        if encoding == "cp1252" and error.reason == "unexpected end of data":
            raise refusal from None
        try:
            fields = _read(path, separator, encoding)
        except UnicodeError:
            raise refusal from None
        except ValueError as other:  # NUL characters indicate a binary file, such as an image
            raise (refusal if "NUL" in str(other) else other) from None
    if encoding == "cp1252":
        warnings.warn(
            f"{path.name} is not UTF-8 and is read as Windows-1252; check names with accents, or save it as UTF-8",
            stacklevel=2,
        )
    return fields


def _read(path: Path, separator: str | None, encoding: str) -> Fields:
    with _long_fields(), _open(path) as opened, io.TextIOWrapper(opened, encoding=encoding, newline="") as text:
        counter = _Lines()
        try:
            start = text.read(SNIFFED)
            text.seek(0)
            if first := re.match(r'"?sep=(.)"?[\r\n]', start, re.IGNORECASE):  # Excel's line that names the separator
                text.readline()
                counter.done = 1
            separator = separator or (first[1] if first else _find_separator(start, path))
            lines = counter.mark(text, separator)
            rows = csv.reader(lines, delimiter=separator, skipinitialspace=separator not in "\t ", strict=True)
            names = _names(path, next(rows, []))
            checked = _rows(rows, len(names), counter)
            blocks = iter(lambda: list(islice(checked, BLOCK)), [])
            parts = [[np.array(column, STRINGS) for column in zip(*block, strict=True)] for block in blocks]
        except (csv.Error, _RowError) as error:
            hint = ""
            if str(error).startswith(("unexpected end", "field larger")):
                hint = f"; close the quote that begins in line {counter.starts[-1] if counter.starts else 1} or later"
            raise ValueError(f"{path} cannot be read as CSV: line {counter.done}: {error}{hint}") from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is damaged: {error}") from None
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)] or [np.array([], STRINGS)] * len(names)
    repeated = frozenset(name for name, count in Counter(names).items() if count > 1)
    return Fields(dict(zip(names, columns, strict=True)), np.array(counter.starts, np.int64), separator, repeated)


@contextmanager
def _long_fields() -> Iterator[None]:
    """Allow fields as long as the longest line inside the block; Python's own limit is 131,072 characters."""
    limit = csv.field_size_limit(LONGEST_LINE)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def check_unique(path: Path, fields: Fields, used: Collection[str], remedy: str) -> None:
    """Check that no name of a used column is repeated; the message ends with the remedy."""
    for name in fields.columns:
        if name in fields.repeated and name in used:
            raise ValueError(f"{path}: two columns are named {name!r}; {remedy}")


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    with open_file(path) as opened:
        if path.suffix.lower() != ".gz":
            yield opened
            return
        with gzip.GzipFile(fileobj=opened) as unpacked:
            yield unpacked


def _start(path: Path) -> bytes:
    with _open(path) as opened:
        return bytes(opened.read(4))


def open_file(path: Path) -> io.BufferedReader:
    """Open a regular file; see `open_regular`."""
    try:
        return open_regular(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {path}") from None


def split_names(names: str | None) -> list[str]:
    """Split a line of CSV into names; names that contain commas are quoted."""
    return [] if names is None else [name.strip() for name in next(csv.reader([names], skipinitialspace=True))]


def quote(text: str) -> str:
    """Quote a string for a message, and shorten it if it is long."""
    return repr(text) if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]!r}…"


class _RowError(Exception):
    """Error for an invalid line; the caller adds the path and the line number."""


class _Lines:
    """Count the lines of a file while they are read."""

    def __init__(self) -> None:
        self.done = 0  # number of lines read so far
        self.starts: list[int] = []  # first line of each row

    def mark(self, file: io.TextIOWrapper, separator: str) -> Iterator[str]:
        """Yield the lines, marking each quoted string that would be a missing value without quotes."""
        # In a valid file, such a quoted string is always a whole field, because quotes inside fields are doubled
        words, gap = "|".join(filter(None, sorted(MISSING))), re.escape(separator)
        quoted = re.compile(rf'(^|{gap}) *"\s*({words})\s*"(?=[{gap}\r\n]|$)')
        while line := file.readline(LONGEST_LINE):
            if len(line) == LONGEST_LINE:
                raise _RowError(f"more than {LONGEST_LINE:,} characters")
            if MARK in line:
                raise _RowError("a NUL character; save the file in UTF-8")
            self.done += 1
            line = _single_spaces(line) if separator == " " else line
            yield quoted.sub(rf'\1"{MARK}\2"', line) if '"' in line else line


def _find_separator(start: str, path: Path) -> str:
    """Detect the separator of a file from its first lines.

    Separators that split the first 50 rows into equally many fields are preferred, then those with the most fields in
    the header. If no separator splits the header, the result is a space if spaces split all rows equally, or else the
    tab for .tsv files and the comma for others.
    """
    preferred = "\t" if ".tsv" in path.name.lower() else ","
    complete = start if len(start) < SNIFFED else start[: start.rfind("\n") + 1]
    best, best_score = preferred, (False, 1)
    for separator in sorted(SEPARATORS, key=lambda s: s != preferred):
        counts = _counts(complete.splitlines(keepends=True), separator)
        if counts and counts[0] > 1 and (score := (len(set(counts)) == 1, counts[0])) > best_score:
            best, best_score = separator, score
    if best_score == (False, 1):
        counts = _counts([_single_spaces(line) for line in complete.splitlines(keepends=True)], " ")
        if len(counts) > 1 and min(counts) == max(counts) > 1:
            return " "
    return best


def _single_spaces(line: str) -> str:
    """Strip a line, and replace consecutive spaces outside quotes with one space."""
    end = "\n" if line.endswith(("\n", "\r")) else ""
    return re.sub(r'("(?:[^"]|"")*")| +', lambda match: match[1] or " ", line.strip(" \r\n")) + end


def _counts(lines: Sequence[str], separator: str) -> list[int]:
    """Return the number of fields in the header and in each of the next rows."""
    counts = []
    try:
        for row in islice(csv.reader(lines, delimiter=separator, skipinitialspace=separator != " "), 50):
            counts += [len(row)] if row else []
    except csv.Error:
        pass
    return counts


def _names(path: Path, header: list[str]) -> list[str]:
    """Return the column names from the header."""
    if not header:
        raise _RowError("no columns; the first line must name them")
    if len(header) > MOST_COLUMNS:
        raise _RowError(f"{len(header):,} columns, at most {MOST_COLUMNS:,} are read")
    if max(map(len, header)) > LONGEST_NAME:
        raise _RowError(f"a name of {max(map(len, header)):,} characters, at most {LONGEST_NAME:,} are read")
    names = [name.lstrip(MARK).strip() or f"Unnamed: {i}" for i, name in enumerate(header)]
    _check_header(path, names)
    return names


def _check_header(path: Path, names: Sequence[str]) -> None:
    """Check that the header is not a row of numbers. Ascending numbers, such as years or wavelengths, are allowed."""
    numbers = []
    for name in names:
        try:
            numbers.append(float(name.replace(",", ".")))
        except ValueError:
            continue
    ascending = all(low < high for low, high in pairwise(numbers))
    if 2 * len(numbers) >= len(names) and (len(numbers) == 1 or not ascending):
        first = ", ".join(name[:LONGEST_QUOTE] for name in names[:4])
        suggested = ",".join(f"x{i}" for i in range(min(len(names), 3)))
        raise ValueError(
            f"{path} has no header: its first line holds numbers, {first}{', …' if len(names) > 4 else ''}; add a line "
            f"with the {len(names)} names of the columns, such as {suggested}{',…' if len(names) > 3 else ''}"
        )


def _rows(reader: Iterator[list[str]], width: int, counter: _Lines) -> Iterator[list[str]]:
    """Yield the rows, skipping empty lines. In a one-column file, an empty line between rows is a missing value."""
    empty: list[int] = []
    start = counter.done + 1
    for row in reader:
        if not row:
            empty.append(start)
        else:
            if width == 1:
                counter.starts += empty
                yield from [[""]] * len(empty)
            if len(row) != width:
                raise _RowError(f"{len(row)} values, but the header has {width} names")
            counter.starts.append(start)
            yield row
            empty = []
        start = counter.done + 1
