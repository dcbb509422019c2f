"""Parse numbers as people write them: with a decimal comma, thousands separators, or a unit such as $ or %."""

import re
from typing import Literal, NamedTuple

import numpy as np

Decimal = Literal[".", ","]
EXACT = 2**53  # float64 represents all integers up to this number exactly
STRINGS = np.dtypes.StringDType()
UNIT = r"[$€£¥₹%]|EUR|USD|GBP|CHF"
SPACES = "\u00a0\u202f\u2009"  # thousands separators in French numbers


class Numbers(NamedTuple):
    """The numbers in a column of strings."""

    values: np.ndarray  # (rows,) int64 or float64
    unit: str = ""  # unit of all or some of the numbers


def _pattern(decimal: str, group: str) -> re.Pattern[str]:
    unit = rf"(?P<{{}}>{UNIT})?\s*"
    return re.compile(
        rf"\s*(?P<sign>[+-]?)\s*{unit.format('before')}(?P<inner>[+-]?)"
        rf"(?P<whole>[1-9]\d{{0,2}}(?P<group>[{group}'’ {SPACES}])\d{{3}}(?:(?P=group)\d{{3}})*|\d*)"
        rf"(?P<rest>(?:[{decimal}]\d*)?(?:[eE][+-]?\d+)?)\s*{unit.format('after')}",
        re.ASCII,
    )


PATTERNS: dict[Decimal, re.Pattern[str]] = {".": _pattern(".", ","), ",": _pattern(",", ".")}


def parse_numbers(fields: np.ndarray, decimal: Decimal = ".") -> Numbers | None:
    """Return the numbers in strings, or None if a string is not a number.

    The result is also None if the units differ, or if an integer would lose digits as float64.

    Args:
      fields: (rows,) strings, without missing values.
      decimal: the decimal separator. The other one of "." and "," separates thousands.

    >>> from nnjax.data._numbers import STRINGS, parse_numbers
    >>> parse_numbers(np.array(["4,082", "$12,000"], STRINGS))
    Numbers(values=array([ 4082, 12000]), unit='$')
    >>> parse_numbers(np.array(["4.082,5", "-1"], STRINGS), ",").values.tolist()
    [4082.5, -1.0]
    """
    if (np.strings.find(fields, "_") >= 0).any():  # Python would read 1_000 as a number
        return None
    if decimal == ",":
        if (np.strings.find(fields, ".") >= 0).any():
            return _parse_written(fields, decimal)
        fields = np.strings.replace(fields, ",", ".")
        return _parse_plain(fields) or (_parse_written(np.strings.replace(fields, ".", ","), decimal))
    return _parse_plain(fields) or _parse_written(fields, decimal)


def _parse_plain(fields: np.ndarray) -> Numbers | None:
    """Return the numbers if NumPy can parse all of them without losing digits, else None."""
    try:
        return Numbers(fields.astype(np.int64))
    except (ValueError, OverflowError):
        pass
    try:
        numbers = fields.astype(np.float64)
    except ValueError:
        return None
    large = np.flatnonzero(np.abs(numbers) >= EXACT)
    return None if any(_loses_digits(fields[row], numbers[row]) for row in large) else Numbers(numbers)


def _loses_digits(text: str, number: float) -> bool:
    """Return True if the text is an integer that float64 cannot represent."""
    digits = text.strip().lstrip("+-")
    return digits.isdecimal() and (len(digits) > 400 or int(digits) != abs(float(number)))


def _parse_written(fields: np.ndarray, decimal: Decimal) -> Numbers | None:
    """Return the numbers, parsed one by one, or None if a string is not a number or the units differ."""
    numbers: dict[str, float | int] = {}
    units = set()
    for field in fields.tolist():  # stops at the first non-number, which is the first row in most text columns
        if field in numbers:
            continue
        match = PATTERNS[decimal].fullmatch(field)
        if match is None or len(field) > 100:
            return None
        units |= {match["before"], match["after"]} - {None}
        whole = re.sub(r"\D", "", match["whole"])
        text = match["sign"] + match["inner"] + whole + match["rest"].replace(",", ".")
        try:
            number = int(text) if not match["rest"] else float(text)
        except ValueError:
            return None
        if isinstance(number, int) and abs(number) >= EXACT:
            return None
        numbers[field] = number
    if len(units) > 1:
        return None
    return Numbers(np.array([numbers[field] for field in fields.tolist()]), "".join(units))
