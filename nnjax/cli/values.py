"""The values of a sweep as they are written: a number, a list a,b,c, or a range low..high:log:count."""

import re
from typing import NamedTuple

import jax
import numpy as np

from nnjax import train
from nnjax.train.sweep import random_search

KINDS = {"log": "log", "lin": "uniform", "int": "int"}  # and their names in `train.random_search`
HOW = "a number, a list a,b,c, or a range low..high:log:count, with lin or int in place of log"


class Values(NamedTuple):
    """What one hyper-parameter is to be."""

    text: str
    numbers: list[float]  # of a grid, ascending in a range; its two ends where no count is given
    kind: str | None = None  # of a range, of KINDS; None for a list
    size: int | None = None  # of a range

    @property
    def low(self) -> float:
        """The smallest."""
        return min(self.numbers)

    @property
    def high(self) -> float:
        """The largest."""
        return max(self.numbers)


def parse(name: str, text: str) -> Values:
    """The values of an option.

    Raises:
      ValueError: for what is none, with the option.
    """
    option, whole = f"--{name.replace('_', '-')}", name == "width"
    match = re.fullmatch(r"([^:]*?)\.\.([^:]*)(?::(log|lin|int))?(?::(\d+))?", text.strip())
    parts = [match[1], match[2]] if match else text.split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        raise ValueError(f"{option} {text}: expected {HOW}") from None
    kind = (match[3] or ("int" if whole else "lin")) if match else None
    if not np.isfinite(numbers).all():
        raise ValueError(f"{option} {text}: the numbers must be finite")
    if (whole or kind == "int") and any(number != int(number) for number in numbers):
        raise ValueError(f"{option} {text}: whole numbers expected")
    if match is None:
        numbers = sorted(set(numbers), key=numbers.index)
        return Values(text, [int(n) for n in numbers] if whole else numbers)
    low, high = numbers
    if low >= high or (kind == "log" and low <= 0):
        raise ValueError(f"{option} {text}: {'0 < ' if kind == 'log' else ''}low < high expected")
    count = None if match[4] is None else int(match[4])
    if count is not None:
        if count < 2:
            raise ValueError(f"{option} {text}: a range has at least 2 values")
        spaced = np.geomspace(low, high, count) if kind == "log" else np.linspace(low, high, count)
        numbers = np.unique(np.round(spaced) if whole or kind == "int" else spaced).tolist()
    return Values(text, [int(n) for n in numbers] if whole else numbers, kind, count)


def fixed(values: Values) -> bool:
    """Whether there is one number only, so that nothing is swept."""
    return values.kind is None and len(values.numbers) == 1


def settings(values: dict[str, Values], random: int | None, seed: int) -> dict[str, np.ndarray]:
    """For each name its value in each setting: every combination, or so many random ones."""
    if random is None:
        return train.grid({name: one.numbers for name, one in values.items()})
    ranges = {
        name: (0, len(one.numbers) - 1, "int") if one.kind is None else (one.low, one.high, KINDS[one.kind])
        for name, one in values.items()
    }
    drawn = random_search(jax.random.fold_in(jax.random.key(seed), 1), random, ranges)
    for name, one in values.items():
        if one.kind is None:  # which of the list
            drawn[name] = np.array(one.numbers)[drawn[name]]
        elif name == "width":
            drawn[name] = np.round(drawn[name]).astype(int)
    return drawn
