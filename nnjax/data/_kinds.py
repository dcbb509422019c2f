"""Detect the kind of each column of a file (numbers, dates or strings) from all its rows."""

import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from nnjax.data._csv import MARK, MISSING, quote
from nnjax.data._dates import choose_format, find_formats, parse_dates
from nnjax.data._numbers import STRINGS, Decimal, Numbers, parse_numbers

# "category" is never detected. With it, numbers and words such as NA are categories; only empty fields are missing
Kind = Literal["number", "text", "category", "date"]


class Column(NamedTuple):
    """A column of numbers, dates or one-hot encoded categories, and its format in the file."""

    name: str
    kind: Kind = "number"
    categories: list[str] | None = None  # None for numbers and dates; "" is the category for missing or rare strings
    decimal: Decimal = "."  # the decimal separator of numbers
    unit: str = ""  # unit of the numbers, such as $ or %
    date: str = ""  # the format of dates, as for `datetime.strptime`
    rare: bool = False  # True if "" is also the category for rare strings


class Parsed(NamedTuple):
    """The parsed values of a column, with NaN, NaT or None for missing values."""

    column: Column  # without categories
    values: np.ndarray  # (rows,) int64, float64, datetime64, or strings


Line = Callable[[int], str]  # returns the line or row number of a row, for messages
Options = dict[Decimal, Numbers]  # the numbers of a column, for each decimal separator that fits


def parse_columns(
    fields: dict[str, np.ndarray], kinds: Mapping[str, Kind], decimal: Decimal | None, separator: str, line: Line
) -> dict[str, Parsed]:
    """Parse each column of a file as the kind that fits all its rows.

    Args:
      fields: (rows,) strings of each column, from `read_csv`.
      kinds: kinds to use without detection: "category", or "text" for strings that must not be read as numbers or
        dates.
      decimal: the decimal separator; None detects it. If a column fits both, as with the value 1,250, it gets the
        decimal separator of most other columns. In a tie, it gets a comma if the fields are separated by semicolons,
        else a point.
      separator: the separator of the fields.
      line: function that returns the place of a row, for messages.

    Warns:
      UserWarning: if numbers have leading zeros and may be codes, or if day and month of dates are ambiguous. It is
        also issued if numbers fit both decimal separators and neither is more common in the other columns.
    """
    signs: tuple[Decimal, ...] = (".", ",") if decimal is None else (decimal,)
    options = {
        name: {} if kinds.get(name) in ("category", "text") else _options(fields[name], signs) for name in fields
    }
    known = _most_common_sign(options, None)
    usual = known or ("," if separator == ";" else ".")
    parsed = {}
    for name, numbers in options.items():
        if numbers:
            sign = usual if usual in numbers else next(iter(numbers))
            _warn_of_codes(name, fields[name])
            parsed[name] = Parsed(Column(name, decimal=sign, unit=numbers[sign].unit), numbers[sign].values)
        else:
            parsed[name] = _parse_texts(name, fields[name], kinds.get(name), line)
    if known is None:
        signs_read = {name: parsed[name].column.decimal for name, numbers in options.items() if numbers}
        if separator == ",":  # numbers without a comma have decimal points, because commas separate fields
            signs_read = {name: sign for name, sign in signs_read.items() if _holds(fields[name], ",")}
        _warn_of_signs(signs_read, options, fields)
    return parsed


def _holds(fields: np.ndarray, letter: str) -> bool:
    return bool((np.strings.find(fields, letter) >= 0).any())


def parse_as(
    columns: Sequence[Column], fields: dict[str, np.ndarray], decimal: Decimal | None, line: Line
) -> dict[str, np.ndarray]:
    """Parse the columns of a new file with the kinds and decimal separators from training.

    Args:
      columns: the columns of the table to parse.
      fields: (rows,) strings of each column, from `read_csv`.
      decimal: the decimal separator of this file; None means the separator of each column in training.
      line: function that returns the place of a row, for messages.

    Raises:
      ValueError: if a column of numbers or dates contains other strings, or if numbers have a different decimal
        separator or unit. Except for a unit, the message gives the line.

    Warns:
      UserWarning: if numbers fit both decimal separators, unless another column fits only the one from training.
    """
    numeric = [c._replace(decimal=decimal or c.decimal) for c in columns if c.kind == "number"]
    options = {c.name: _options(fields[c.name], (".", ",") if decimal is None else (decimal,)) for c in numeric}
    _check_signs(numeric, options, fields, line)
    values = {}
    for column in columns:
        field, place = fields[column.name], f"column {column.name!r} must hold"
        if column.kind == "number":
            numbers = options[column.name].get(decimal or column.decimal)
            if numbers is None:
                wrong, row = first_text(field, decimal or column.decimal)
                raise ValueError(
                    f"{place} numbers, got {quote(wrong)} in {line(row)}; correct the field, or leave it empty"
                )
            if numbers.unit not in ("", column.unit) and column.unit:
                raise ValueError(f"{place} numbers in {column.unit}, as in training, got {numbers.unit}; convert them")
            values[column.name] = numbers.values
        elif column.kind == "date":
            texts = _map_distinct(field, lambda text: meaning(text, "date"))
            values[column.name] = dates = parse_dates(texts.tolist(), column.date)
            wrong_rows = np.flatnonzero(np.isnat(dates) & np.array([text is not None for text in texts], bool))
            if wrong_rows.size:
                example, row = datetime(2026, 12, 31, 18, 30).strftime(column.date), int(wrong_rows[0])
                raise ValueError(
                    f"{place} dates such as {example}, got {quote(texts[row])} in {line(row)}; write it in this format"
                )
        else:
            values[column.name] = _map_distinct(field, partial(meaning, kind=column.kind))
    return values


def _options(fields: np.ndarray, signs: Sequence[Decimal]) -> Options:
    """Return the numbers of a column for each decimal separator that fits all its rows, with NaN for missing values."""
    options = {sign: numbers for sign in signs if (numbers := parse_numbers(fields, sign)) is not None}
    if not options:
        missing = _map_distinct(fields, lambda field: meaning(field, "number") is None).astype(bool)
        if missing.any():
            present = {sign: parse_numbers(fields[~missing], sign) for sign in signs}
            options = {
                sign: _with_missing(numbers, missing) for sign, numbers in present.items() if numbers is not None
            }
    return options


def _with_missing(numbers: Numbers, missing: np.ndarray) -> Numbers:
    values = np.full(len(missing), np.nan)
    values[~missing] = numbers.values
    return numbers._replace(values=values)


def _most_common_sign(options: dict[str, Options], default: Decimal | None) -> Decimal | None:
    """Return the most common decimal separator among columns that fit only one, or the default for a tie."""
    signs = [sign for numbers in options.values() if len(numbers) == 1 for sign in numbers]
    if signs.count(",") == signs.count("."):
        return default
    return "," if signs.count(",") > signs.count(".") else "."


def _parse_texts(name: str, fields: np.ndarray, kind: Kind | None, line: Line) -> Parsed:
    """Parse a column without numbers as dates or strings."""
    if kind == "category":
        return Parsed(Column(name, "category"), _map_distinct(fields, partial(meaning, kind=kind)))
    texts = _map_distinct(fields, partial(meaning, kind="text"))
    known = list({text for text in texts.tolist() if text is not None})
    if kind == "text" or not (formats := find_formats(known)):
        return Parsed(Column(name, "text"), texts)
    form, other = choose_format(known, formats)
    if other is not None:
        row = next(i for i, text in enumerate(texts) if text is not None)
        warnings.warn(
            f"column {name!r}: the dates could be {form} or {other} ({quote(texts[row])} in {line(row)}) and are read "
            f"as {form}; write them as 2026-12-31 to be sure",
            stacklevel=4,
        )
    return Parsed(Column(name, "date", date=form), parse_dates(texts.tolist(), form))


def _warn_of_codes(name: str, fields: np.ndarray) -> None:
    """Warn if numbers have leading zeros, because they may be codes."""
    if (code := _leading_zero(fields)) is not None:
        warnings.warn(
            f"column {name!r} is read as numbers, but {code!r} has leading zeros; if it holds codes, make it "
            "categorical",
            stacklevel=4,
        )


def _check_signs(
    columns: Sequence[Column], options: dict[str, Options], fields: dict[str, np.ndarray], line: Line
) -> None:
    """Check that the numbers of a new file fit the decimal separators in training; warn if they are ambiguous."""
    for column in columns:
        numbers, sign = options[column.name], column.decimal
        if numbers and sign not in numbers:
            other = next(iter(numbers))
            wrong, row = first_text(fields[column.name], sign)
            raise ValueError(
                f"column {column.name!r} must hold numbers with the decimal separator {sign!r}, as in training, got "
                f"{quote(wrong)} in {line(row)}; if the decimal separator of this file is {other!r}, pass --decimal "
                f"{other}"
            )
    if not any(len(options[column.name]) == 1 for column in columns):
        _warn_of_signs({c.name: c.decimal for c in columns}, options, fields, trained=True)


def _warn_of_signs(
    signs: dict[str, Decimal], options: dict[str, Options], fields: dict[str, np.ndarray], *, trained: bool = False
) -> None:
    """Issue one warning for all columns whose values depend on the decimal separator.

    Args:
      signs: the decimal separator of each column.
      options: the numbers of each column.
      fields: the strings of each column.
      trained: True if the decimal separators are those of the training data.
    """
    unclear = [name for name in signs if len(options[name]) == 2 and not _equal(options[name])]
    if not unclear:
        return
    name = unclear[0]
    values, sign = {s: numbers.values for s, numbers in options[name].items()}, signs[name]
    row = int(np.flatnonzero((values["."] != values[","]) & ~np.isnan(values["."]))[0])
    other: Decimal = "," if sign == "." else "."
    also = f"; {len(unclear) - 1} more columns are ambiguous, too" if len(unclear) > 1 else ""
    how = ", as in training" if trained else ""
    warnings.warn(
        f"column {name!r}: {quote(fields[name][row])} is read as {values[sign][row]:g}{how}; with the decimal "
        f"separator {other!r} it would be {values[other][row]:g}{also}",
        stacklevel=4,
    )


def _equal(numbers: Options) -> bool:
    return np.array_equal(numbers["."].values, numbers[","].values, equal_nan=True)


def _leading_zero(fields: np.ndarray) -> str | None:
    """Return the first field with a leading zero, such as 01 or 007, or None."""
    zero = np.strings.startswith(fields, "0") & (np.strings.str_len(fields) > 1)
    return next((field for field in fields[zero].tolist() if field[1].isdecimal()), None)


def parse_numbers_of(fields: np.ndarray) -> np.ndarray | None:
    """Return the numbers in strings (rows,), with NaN for missing values, or None if a string is not a number."""
    options = _options(fields, ["."])
    return options["."].values if options else None


def first_text(fields: np.ndarray, decimal: Decimal = ".") -> tuple[str, int]:
    """Return the first field that is not a number, with its row, or the last field if all are numbers."""
    low, high = 0, len(fields)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _options(fields[low:middle], [decimal]) else (low, middle)
    return fields[low].removeprefix(MARK), low


def count_texts(texts: Sequence[str]) -> int:
    """Return the number of strings that are not numbers."""
    counts = Counter(texts)
    return sum(count for text, count in counts.items() if parse_numbers(np.array([text], STRINGS)) is None)


def clean_text(text: str) -> str:
    """Strip a string and normalise its accents (NFC) and the capitalisation of booleans."""
    text = unicodedata.normalize("NFC", text).strip()
    return text.capitalize() if text.lower() in ("true", "false") else text


def meaning(field: str, kind: Kind | None) -> str | None:
    """Return the cleaned text of a field, or None if it marks a missing value."""
    text = clean_text(field.removeprefix(MARK))
    missing = not text or (text in MISSING and kind != "category" and not field.startswith(MARK))
    return None if missing else text


def _map_distinct(fields: np.ndarray, function: Callable[[str], Any]) -> np.ndarray:
    """Apply a function to each distinct field, and return the results for all fields."""
    listed = fields.tolist()
    values = {field: function(field) for field in set(listed)}
    result = np.empty(len(listed), object)
    result[:] = [values[field] for field in listed]
    return result
