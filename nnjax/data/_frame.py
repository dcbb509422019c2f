"""Access the columns of a table in memory, such as a DataFrame or a dict of arrays."""

import math
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from nnjax.data._kinds import clean_text

Frame: TypeAlias = Mapping[str, Any]  # columns (rows,) by name: a dict of arrays or a pandas DataFrame


def column_values(frame: Frame, name: str) -> np.ndarray:
    """Return the values of a column as integers, float64, datetime64, or an object array of strings and None.

    Raises:
      ValueError: if the column is not (rows,), or holds other values, such as complex numbers.
    """
    column = frame[name]
    if isinstance(column, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(column)
        column = [None if hidden else value for hidden, value in zip(mask, column.data.tolist(), strict=True)]
    values = np.asarray(column)
    if type(getattr(column, "dtype", None)).__name__ == "CategoricalDtype":  # pandas; the categories may be numbers
        values = values.astype(object)
    elif values.dtype == object:
        values = _unbox(values)
    if values.ndim != 1:
        raise ValueError(f"column {name!r} must be one value for each row, got an array of shape {values.shape}")
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a long double may become infinite, which raises an error later
            return values.astype(np.float64, copy=False)
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind == "M":
        return values.astype("datetime64[us]")
    if values.dtype.kind not in "bOSTU":
        raise ValueError(f"column {name!r} must hold numbers or strings, got {values.dtype}; convert or drop it")
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    clean = cache(clean_text)  # worthwhile because many rows have the same strings
    return np.array([None if _is_missing(value) else clean(str(value)) for value in values.tolist()], object)


def _unbox(values: np.ndarray) -> np.ndarray:
    """Convert an object array of Python numbers to a numeric array; return other arrays unchanged."""
    numbers = values.tolist() if values.ndim == 1 and values.size else [None]
    if not all(isinstance(value, Real | Decimal) and not isinstance(value, bool) for value in numbers):
        return values
    array = np.array([float(value) if isinstance(value, Decimal) else value for value in numbers])
    return array if array.dtype.kind in "iuf" else values


def _is_missing(value: Any) -> bool:
    """Return True for None, NaN, and pandas's NA and NaT."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def missing_rows(values: np.ndarray) -> np.ndarray:
    """Return a mask (rows,), True where a value of the column is missing."""
    if values.dtype.kind == "M":
        return np.isnat(values)
    if values.dtype == object:
        return np.array([value is None for value in values], bool)
    return np.isnan(values)


def is_numeric(values: np.ndarray) -> bool:
    """Return True for integers and floats, False for strings and dates."""
    return values.dtype.kind in "iuf"


def as_texts(values: np.ndarray) -> np.ndarray:
    """Return the values (rows,) of a column as strings, and None for missing values."""
    return values if values.dtype == object else values.astype(str).astype(object)
