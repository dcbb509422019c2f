"""Define search spaces: the ranges and lists that `train.search` draws settings from.

Every dimension maps the unit interval to its values, so search methods only need points in the unit cube.
"""

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np

from nnjax import checks


class Dimension(NamedTuple):
    """The values of one setting, as returned by `uniform`, `log_uniform`, `choice` or `structure`."""

    kind: Literal["uniform", "log", "choice", "structure"]
    values: tuple[Any, ...]  # (low, high) of a range, or the values of a list

    @property
    def size(self) -> int | None:
        """Return the number of values, or None for a range."""
        return len(self.values) if self.kind in ("choice", "structure") else None


def uniform(low: float, high: float) -> Dimension:
    """Return a dimension whose numbers are drawn uniformly from a range.

    Args:
      low: the smallest value.
      high: the largest value.

    Raises:
      ValueError: if a number is not finite, or if low ≥ high.

    >>> train.uniform(0, 0.5).values
    (0.0, 0.5)
    """
    return Dimension("uniform", _ends("uniform", low, high))


def log_uniform(low: float, high: float) -> Dimension:
    """Return a dimension of positive numbers, such as learning rates, whose logarithm is drawn uniformly.

    Args:
      low: the smallest value, > 0.
      high: the largest value.

    Raises:
      ValueError: if a number is not positive and finite, or if low ≥ high.

    >>> train.log_uniform(1e-4, 1e-1).values
    (0.0001, 0.1)
    """
    ends = _ends("log_uniform", low, high)
    if ends[0] <= 0:
        raise ValueError(f"log_uniform: low must be > 0, got {low}; use train.uniform, or a small positive number")
    return Dimension("log", ends)


def choice(values: Iterable[float]) -> Dimension:
    """Return a dimension of equally probable numbers. They are traced, so one program is compiled for all of them.

    Args:
      values: the numbers, sorted if their order is meaningful.

    Raises:
      ValueError: if the list is empty or contains duplicates, or if a number is not finite.
      TypeError: if a value is not a number; use `structure` for such values.

    >>> train.choice([16, 32, 64]).values
    (16, 32, 64)
    """
    numbers = _as_list("choice", values)
    if any(isinstance(v, bool) or not isinstance(v, (int, float, np.integer, np.floating)) for v in numbers):
        raise TypeError(
            f"choice: values must be numbers, which are traced, got {numbers!r:.80}; for settings that change the "
            "program (names, depths, functions, batch sizes), use train.structure([…])"
        )
    column = np.asarray(numbers)
    if column.dtype.kind not in "iuf" or not np.isfinite(column).all():
        raise ValueError(f"choice: values must be finite numbers, got {numbers!r:.80}")
    return Dimension("choice", tuple(column.tolist()))


def structure(values: Iterable[Any]) -> Dimension:
    """Return a dimension whose values change the program, such as depths, activations, batch sizes or optimizers.

    `make_run` gets the Python values, not tracers. For each combination of values, a separate program is compiled.

    Args:
      values: hashable values.

    Raises:
      ValueError: if the list is empty or contains duplicates.
      TypeError: if a value is not hashable.

    >>> train.structure([1, 2, 3]).values
    (1, 2, 3)
    """
    return Dimension("structure", _as_list("structure", values))


def values_at(dimension: Dimension, units: np.ndarray) -> np.ndarray:
    """Map points (n,) in the unit interval to values. In a range, 0 maps to the lowest value and 1 to the highest.

    >>> from nnjax.train.space import values_at
    >>> values_at(train.choice([8, 16]), np.array([0.0, 0.49, 0.5, 1.0])).tolist()
    [8, 8, 16, 16]
    """
    if dimension.kind in ("choice", "structure"):
        count = len(dimension.values)
        return np.asarray(dimension.values)[np.minimum((units * count).astype(int), count - 1)]
    low, high = dimension.values
    if dimension.kind == "log":
        return np.clip(low * np.exp(units * math.log(high / low)), low, high)
    return np.clip(low + units * (high - low), low, high)


def unit_of(dimension: Dimension, value: Any) -> float:
    """Return the point in the unit interval that maps to a value. For a list, return the middle of all such points."""
    if dimension.kind in ("choice", "structure"):
        return (dimension.values.index(value) + 0.5) / len(dimension.values)
    low, high = dimension.values
    u = math.log(value / low) / math.log(high / low) if dimension.kind == "log" else (value - low) / (high - low)
    return min(1.0, max(0.0, u))


def check_space(where: str, space: Any) -> dict[str, Dimension]:
    """Return a space as a dictionary; raise TypeError unless every entry is a dimension."""
    for name, dimension in checks.mapping(where, "space", space).items():
        if not isinstance(dimension, Dimension):
            raise TypeError(
                f"{where}: space: {name} must be train.uniform(low, high), train.log_uniform(low, high), "
                f"train.choice([…]) or train.structure([…]), got {dimension!r:.80}"
            )
    return dict(space)


def _ends(where: str, low: Any, high: Any) -> tuple[float, float]:
    low, high = (float(checks.in_range(where, n, v, "(-inf, inf)")) for n, v in (("low", low), ("high", high)))
    if low >= high:
        raise ValueError(f"{where}: low must be < high, got {low:g} and {high:g}; leave a constant out of the space")
    return low, high


def _as_list(where: str, values: Any) -> tuple[Any, ...]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{where}: values must be a list, got {values!r:.80}")
    listed = tuple(values)
    try:
        distinct = len(set(listed))
    except TypeError as error:
        raise TypeError(f"{where}: values must be hashable, got {listed!r:.80}") from error
    if distinct < max(1, len(listed)):
        raise ValueError(f"{where}: values must be a non-empty list without duplicates, got {listed!r:.80}")
    return listed
