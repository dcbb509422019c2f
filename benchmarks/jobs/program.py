"""The functions that a peer returns for a job, which the worker runs, times and checks."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Program(NamedTuple):
    """One peer doing one job. Each call gets the state that the previous call returned, and may overwrite it."""

    state: Any  # before the first call
    call: Callable[[Any], Any]  # state -> state
    block: Callable[[Any], object]  # waits until a state is computed
    error: Callable[[Any], float]  # error of the state after the first call, against float64; rounding stays below 1
    units: int  # units of work in one call
    stages: dict[str, float] = {}  # noqa: RUF012  seconds to trace, lower and compile, if known
    memory: dict[str, int] = {}  # noqa: RUF012  bytes
    figures: Callable[[Any], dict[str, float]] = lambda _: {}  # further results, from the state after the last call
    flops: int = 0  # operations in one unit of work; one peer's count is used for all, because all do the same work
    bytes: int = 0  # minimum memory traffic of one unit, read and written
