"""Read tables from CSV, NPZ and (with pandas) Parquet files."""

import difflib
import math
from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from nnjax import checks
from nnjax.data import _csv
from nnjax.data._frame import Frame, as_texts, column_values
from nnjax.data._kinds import Column, Kind, parse_as, parse_columns
from nnjax.data._npz import read_npz
from nnjax.data._numbers import Decimal
from nnjax.data._problems import Line, line_numbers
from nnjax.data.table import Table

SUFFIXES = (*_csv.SUFFIXES, ".parquet", ".npz")


class RawTable(NamedTuple):
    """The columns of a file or DataFrame before they are encoded."""

    frame: dict[str, np.ndarray]  # numbers, dates or strings (rows,); see `_kinds.Parsed`
    columns: dict[str, Column]  # kinds and formats of the columns in a file
    lines: np.ndarray | None = None  # (rows,) line number of each row; None unless it is a CSV file
    extra: Mapping[str, np.ndarray] = MappingProxyType({})  # further columns that were not parsed


def is_table_file(name: str) -> bool:
    """Return True if the file name has the suffix of a supported table format."""
    return name.lower().endswith(SUFFIXES)


def read_table(
    path: Path,
    *,
    kinds: Mapping[str, Kind] = MappingProxyType({}),
    separator: str | None = None,
    decimal: Decimal | None = None,
    na: Collection[str] = (),
    drop: Collection[str] = (),
) -> RawTable:
    """Read a CSV file with a header, a Parquet file, or an NPZ file, and detect the kinds of its columns.

    The arrays `x` and `y` of an NPZ file become the columns `x0`, `x1`, … and `y`.

    Args:
      path: the file.
      kinds: kinds to use without detection: "category" for columns of categories that may look like numbers or missing
        values; "text" for strings that must not be read as numbers or dates.
      separator: the separator of a CSV file; None detects it.
      decimal: the decimal separator of a CSV file; None detects it.
      na: strings of a CSV file that mark missing values, in addition to the usual ones.
      drop: columns that will be left out, whose names may be repeated in a CSV file.

    Raises:
      FileNotFoundError, OSError: if the file does not exist or cannot be opened.
      ValueError: if the file cannot be read, or if two columns have the same name; the message gives the path.
      ModuleNotFoundError: if pandas or pyarrow, which Parquet files need, is not installed.
    """
    if not _is_csv(path):
        frame = _read_arrays(path)
        _check_columns(path, "categorical column", kinds, frame)
        return in_memory(frame, kinds)
    fields = _csv.read_csv(path, separator)
    used = set(fields.columns) - set(drop)
    _csv.check_unique(path, fields, used, "rename one of them, or drop all columns of this name")
    texts = _without(fields.columns, na)
    _check_columns(path, "categorical column", kinds, texts)
    with checks.located(f"in {path}"):
        parsed = parse_columns(texts, kinds, decimal, fields.separator, line_numbers(fields.lines))
    values = {name: part.values for name, part in parsed.items()}
    return RawTable(values, {name: part.column for name, part in parsed.items()}, fields.lines)


def read_new_rows(
    path: Path,
    table: Table,
    *,
    keep: Collection[str] = (),
    separator: str | None = None,
    decimal: Decimal | None = None,
) -> RawTable:
    """Read the columns that a table has and those to keep from a file of new rows; see `read_table`.

    Args:
      path: the file.
      table: the table from training, whose columns in a CSV file are read with the same kinds.
      keep: further columns of the file to return without parsing.
      separator: the separator of a CSV file; None detects it.
      decimal: the decimal separator of a CSV file; None uses those from training.

    Raises:
      FileNotFoundError, OSError, ValueError, ModuleNotFoundError: as for `read_table`.
    """
    if not _is_csv(path):
        frame = _read_arrays(path)
        _check_columns(path, "column to keep", keep, frame)
        return in_memory(frame, {})._replace(extra={name: np.asarray(frame[name]) for name in keep})
    fields = _csv.read_csv(path, separator)
    used = {*(column.name for column in table.columns), *table.target_names, *keep}
    _csv.check_unique(path, fields, used, "rename one of them")
    texts, line = _without(fields.columns, table.na or ()), line_numbers(fields.lines)
    _check_columns(path, "column to keep", keep, texts)
    columns = [column for column in table.columns if column.name in texts]
    with checks.located(f"in {path}"):
        values = parse_as(columns, texts, decimal, line) | _read_targets(table, texts, decimal, line)
    extra = {name: np.array([field.removeprefix(_csv.MARK) for field in fields.columns[name]], object) for name in keep}
    return RawTable(values, {column.name: column for column in columns}, fields.lines, extra)


def in_memory(frame: Frame, kinds: Mapping[str, Kind]) -> RawTable:
    """Return the columns of a DataFrame or dict of arrays as a `RawTable`."""
    values = {str(name): column_values(frame, name) for name in frame}
    values |= {name: as_texts(values[name]) for name in kinds if name in values}
    return RawTable(values, {name: Column(name, kind) for name, kind in kinds.items()})


def _read_targets(
    table: Table, fields: dict[str, np.ndarray], decimal: Decimal | None, line: Line
) -> dict[str, np.ndarray]:
    """Return the targets in a new file as numbers or strings, if any; predictions do not need them."""
    values: dict[str, np.ndarray] = {}
    for name in table.target_names:
        if name in fields:
            try:
                column = Column(name, table.target_kind, decimal=table.target_decimal)
                values |= parse_as([column], fields, decimal, line)
            except ValueError:
                values |= parse_as([Column(name, "text")], fields, decimal, line)
    return values


def _without(fields: dict[str, np.ndarray], na: Collection[str]) -> dict[str, np.ndarray]:
    """Replace the strings `na`, which mark missing values, with empty strings."""
    if not na:
        return fields
    return {name: np.where(np.isin(np.strings.strip(column), list(na)), "", column) for name, column in fields.items()}


def _is_csv(path: Path) -> bool:
    return path.name.lower().endswith(_csv.SUFFIXES)


def _read_arrays(path: Path) -> Frame:
    """Read the columns of a Parquet file, or of an NPZ file."""
    return _read_parquet(path) if path.name.lower().endswith(".parquet") else _npz_columns(path)


def _read_parquet(path: Path) -> Frame:
    _csv.open_file(path).close()  # raises an error with a shorter message than pandas
    try:
        import pandas as pd
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{path} needs pandas and pyarrow: pip install 'nnjax[tables]'") from None
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise ModuleNotFoundError(f"{path} needs pyarrow: pip install 'nnjax[tables]'") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from None


def _npz_columns(path: Path) -> dict[str, np.ndarray]:
    x, y = read_npz(path)
    flat = x.reshape(len(x), math.prod(x.shape[1:]))
    return {f"x{i}": flat[:, i] for i in range(flat.shape[1])} | ({} if y is None else {"y": y})


def check_column(path: Any, kind: str, name: str, frame: Collection[str]) -> None:
    """Check that a file has a column. The error message lists similar names among the first thousand columns."""
    if name not in frame:
        near = difflib.get_close_matches(name, islice(frame, 1000), 20, cutoff=0)
        likely = difflib.get_close_matches(name, near, 1)
        hint = f" (did you mean {likely[0]!r}?)" if likely else ""
        raise ValueError(f"{path}: unknown {kind} {name!r}{hint}; known names are {', '.join(near)}")


def _check_columns(path: Path, kind: str, names: Collection[str], frame: Collection[str]) -> None:
    for name in names:
        check_column(path, kind, name, frame)
