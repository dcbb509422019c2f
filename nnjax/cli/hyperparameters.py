"""Parse the values of a hyper-parameter: a number, a list a,b,c, or a range low..high:log:count."""

import re
from typing import NamedTuple

import jax
import numpy as np

from nnjax import train
from nnjax.cli.console import option_name

SPACINGS = {"log": "log", "lin": "uniform", "int": "int"}  # spacing -> kind of range in `train.random_search`
SYNTAX = "a number, a list a,b,c, or a range low..high:log:count, with lin or int in place of log"


class Values(NamedTuple):
    """The values of one hyper-parameter."""

    text: str
    numbers: list[float]  # the values, ascending for a range; only low and high if a range has no count
    spacing: str | None = None  # a key of SPACINGS; None if the values are a list
    size: int | None = None  # count of a range; None if there is no count

    @property
    def low(self) -> float:
        """Return the smallest value."""
        return min(self.numbers)

    @property
    def high(self) -> float:
        """Return the largest value."""
        return max(self.numbers)

    @property
    def constant(self) -> bool:
        """Return True if the value is a single number, which is not swept."""
        return self.spacing is None and len(self.numbers) == 1


def parse_values(name: str, text: str) -> Values:
    """Parse the values of an option.

    Args:
      name: the name of the setting; values of `width` must be integers.
      text: the value of the option, as written on the command line.

    Raises:
      ValueError: if the text is not a number, a list or a valid range; the message names the option.

    >>> from nnjax.cli.hyperparameters import parse_values
    >>> parse_values("learning_rate", "1..100:log:3").numbers
    [1.0, 10.0, 100.0]
    """
    place, integers = f"{option_name(name)} {text}", name == "width"
    if "..." in text:
        raise ValueError(f"{place}: a range has two dots, as in 0.1..0.5")
    match = re.fullmatch(r"([^:]*?)\.\.([^:]*)(?::(log|lin|int))?(?::(\d+))?", text.strip())
    parts = [match[1], match[2]] if match else text.split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        raise ValueError(f"{place}: expected {SYNTAX}") from None
    spacing = (match[3] or ("int" if integers else "lin")) if match else None
    if not np.isfinite(numbers).all():
        raise ValueError(f"{place}: the numbers must be finite")
    if (integers or spacing == "int") and any(number != int(number) for number in numbers):
        raise ValueError(f"{place}: the numbers must be integers")
    if match is None:
        numbers = sorted(set(numbers), key=numbers.index)
        return Values(text, [int(n) for n in numbers] if integers else numbers)
    low, high = numbers
    if low >= high:
        raise ValueError(f"{place}: expected low < high, got {low:g} and {high:g}; swap them, or give one number")
    if spacing == "log" and low <= 0:
        raise ValueError(f"{place}: expected 0 < low < high; begin at a small number such as 1e-6, or omit :log")
    count = None if match[4] is None else int(match[4])
    if count is not None:
        if count < 2:
            raise ValueError(f"{place}: a range needs a count of at least 2")
        grid = np.geomspace(low, high, count) if spacing == "log" else np.linspace(low, high, count)
        numbers = np.unique(np.round(grid) if integers or spacing == "int" else grid).tolist()
    return Values(text, [int(n) for n in numbers] if integers else numbers, spacing, count)


def combine(swept: dict[str, Values], random: int | None, seed: int) -> dict[str, np.ndarray]:
    """Combine the values of all hyper-parameters into settings; return an array (settings,) per hyper-parameter.

    Args:
      swept: the values of each hyper-parameter.
      random: number of settings to draw from the lists and ranges; None means all combinations.
      seed: random seed of the draws.
    """
    if random is None:
        return train.grid({name: values.numbers for name, values in swept.items()})
    ranges = {
        name: (0, len(values.numbers) - 1, "int")
        if values.spacing is None
        else (values.low, values.high, SPACINGS[values.spacing])
        for name, values in swept.items()
    }
    columns = train.random_search(jax.random.fold_in(jax.random.key(seed), 1), random, ranges)
    for name, values in swept.items():
        if values.spacing is None:  # the drawn number is an index into the list
            columns[name] = np.array(values.numbers)[columns[name]]
        elif name == "width":
            columns[name] = np.round(columns[name]).astype(int)
    return columns
