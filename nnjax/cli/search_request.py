"""Parse the command-line settings of a search into the search space, the rungs and the fixed settings."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from nnjax import train
from nnjax.cli.config import SETTINGS, STRUCTURAL, SWEEPABLE, Config, check_settings
from nnjax.cli.console import option_name
from nnjax.cli.hyperparameters import Values, parse_values
from nnjax.train.space import Dimension

# The settings of the search itself
OWN = ("trials", "population", "rungs", "method", "keep_share", "patience", "seeds", "folds")
RUNGS = "1,3,9,27"  # the default, unless a regression has few rows


class Request(NamedTuple):
    """The parsed settings of a search."""

    config: Config  # the settings that are not searched, with the largest width and the epochs of the last rung
    space: dict[str, Dimension]
    rungs: tuple[float, ...]
    ranges: dict[str, str]  # the searched settings as written on the command line, such as "0..0.5"


def parse_request(settings: Mapping[str, Any]) -> Request:
    """Parse the settings of a search.

    Args:
      settings: the settings of a run and those in `OWN`; settings that can be searched are strings or None.

    Raises:
      ValueError: if a setting is invalid, as far as this does not depend on the data.
    """
    numbers = {name: parse_values(name, settings[name]) for name in SWEEPABLE if settings[name] is not None}
    listed = {name: _parse_list(name, settings[name]) for name in STRUCTURAL if settings[name] is not None}
    constants = {name: v.numbers[0] for name, v in numbers.items() if v.constant}
    constants |= {name: values[0] for name, values in listed.items()}
    fixed = {name: settings[name] for name in SETTINGS if name not in (*SWEEPABLE, *STRUCTURAL, *OWN)}
    rungs = _parse_rungs(RUNGS if settings["rungs"] is None else settings["rungs"])
    config = Config(**fixed | constants | {"epochs": rungs[-1]})
    space = {name: _dimension(name, v) for name, v in numbers.items() if not v.constant}
    space |= {name: train.structure(values) for name, values in listed.items() if len(values) > 1}
    if not space:
        raise ValueError("no setting has several values; pass a list or a range, as in --learning-rate 1e-4..1e-1:log")
    _check_own(settings, rungs)
    if config.validation == 0:
        raise ValueError("a search compares trials by validation loss; --validation must be > 0, or use --folds 5")
    for combination in itertools.product(*listed.values()):
        structure = replace(config, **dict(zip(listed, combination, strict=True)))
        if "width" in space and structure.depth == 0:
            raise ValueError("--width cannot be searched with --depth 0; give one number")
        for name, values in numbers.items():
            for number in (values.low, values.high):
                setting: dict[str, Any] = {name: number}
                check_settings(replace(structure, **setting))
    if "width" in space:
        config = replace(config, width=int(numbers["width"].high))
    return Request(config, space, rungs, {name: str(settings[name]) for name in space})


def _check_own(settings: Mapping[str, Any], rungs: tuple[float, ...]) -> None:
    """Check the settings of the search itself, except for the method, which is checked by the option."""
    for name in ("trials", "population", "seeds", "patience"):
        if settings[name] is not None and settings[name] < 1:
            raise ValueError(f"{option_name(name)} must be ≥ 1, got {settings[name]}")
    if settings["patience"] is not None and settings["patience"] > len(rungs) - 2:
        most = f"at most {len(rungs) - 2}" if len(rungs) > 2 else "omitted"
        raise ValueError(
            f"--patience {settings['patience']} stops no trial: with {len(rungs)} --rungs, it must be {most}"
        )
    folds = settings["folds"]
    if folds is not None and folds < 2:
        raise ValueError(f"--folds must be ≥ 2, got {folds}")
    if folds is not None and settings["seeds"] > 1:
        raise ValueError("--seeds applies only without --folds, because each fold has its own seed")
    share = settings["keep_share"]
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"--keep-share must be in (0, 1], got {share:g}")


def replicates_of(settings: Mapping[str, Any]) -> int | None:
    """Return the number of networks of a trial, one for each fold or seed; None if there is only one."""
    count: int = settings["folds"] or settings["seeds"]
    return None if count == 1 else count


def members_of(settings: Mapping[str, Any]) -> int:
    """Return the number of networks that are trained at the same time."""
    population: int = min(settings["population"], settings["trials"])
    return population * (replicates_of(settings) or 1)


def describe_replicates(settings: Mapping[str, Any]) -> str:
    """Return the number of seeds or folds of each trial, such as " × 3 seeds", or "" for a single network."""
    count = replicates_of(settings)
    return "" if count is None else f" × {count} {'seeds' if settings['folds'] is None else 'folds'}"


def _parse_list(name: str, text: str) -> list[Any]:
    """Parse a list a,b,c into values with the type of the setting."""
    kind = int if SETTINGS[name] is int else str
    try:
        values = [kind(part.strip()) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option_name(name)} {text}: expected an integer, or a list of integers a,b,c") from None
    return list(dict.fromkeys(values))


def wide_linear_ranges(request: Request) -> Iterator[str]:
    """Yield a note for each range without :log that spans a factor of 100 or more: few trials get its small values."""
    for name, dimension in request.space.items():
        if dimension.kind == "uniform" and 0 < 100 * dimension.values[0] <= dimension.values[1]:
            low, high = dimension.values
            share = (high - high / 10) / (high - low)
            yield (
                f"{option_name(name)} {request.ranges[name]}: {100 * share:.0f} % of the trials get values above "
                f"{high / 10:g}; append :log to draw each order of magnitude equally often"
            )


def default_rungs(epochs: float) -> str:
    """Return the default rungs: RUNGS or, if `nnjax train` takes more than 40 epochs, these epochs and parts of them.

    Args:
      epochs: default number of epochs of `nnjax train` for the data.

    >>> from nnjax.cli.search_request import default_rungs
    >>> default_rungs(40), default_rungs(403)
    ('1,3,9,27', '15,45,134,403')
    """
    return RUNGS if epochs <= 40 else ",".join(f"{round(epochs / part)}" for part in (27, 9, 3, 1))


def _parse_rungs(text: str) -> tuple[float, ...]:
    try:
        rungs = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--rungs {text}: expected numbers of epochs, as in 1,3,9,27") from None
    if not all(0 < a < b for a, b in itertools.pairwise((*rungs, float("inf")))):
        raise ValueError(f"--rungs {text}: the numbers of epochs must be positive and ascending, as in 1,3,9,27")
    return rungs


def _dimension(name: str, values: Values) -> Dimension:
    """Convert the values of an option to a dimension. Ranges of integers and ranges with a count become lists."""
    if values.spacing is None or values.size is not None:
        return train.choice(values.numbers)
    if name == "width" or values.spacing == "int":
        return train.choice(range(int(values.low), int(values.high) + 1))
    return (train.log_uniform if values.spacing == "log" else train.uniform)(values.low, values.high)
