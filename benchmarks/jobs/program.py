"""Define the interface between peers and the worker, which runs, times and checks their programs."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Program(NamedTuple):
    """A job as implemented by a peer. Each call receives the state from the previous call and may overwrite it."""

    state: Any  # state before the first call
    call: Callable[[Any], Any]  # state -> state
    block: Callable[[Any], object]  # waits until a state has been computed
    error: Callable[[Any], float]  # after the first call, as a multiple of what rounding may cause; above 1 if wrong
    units: int  # units of work in one call
    stages: dict[str, float] = {}  # noqa: RUF012  seconds to trace, lower and compile, if known
    memory: dict[str, int] = {}  # noqa: RUF012  bytes by purpose, such as "peak"; empty if unknown
    figures: Callable[[Any], dict[str, float]] = lambda _: {}  # further results, from the state after the last call
    flops: int = 0  # operations in one unit of work; the count of one peer is used for all
    bytes: int = 0  # minimum memory traffic of one unit of work, read and written
