"""What stands in the way of more speed: the arithmetic, the memory, small products, or all that surrounds them."""

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.harness.record import Row
from benchmarks.report.stats import summary


class Rates(NamedTuple):
    """What this machine was seen to do at best."""

    flops: float  # operations a second, float32, in a large matrix product
    bytes: float  # a second, of memory too large for caches


class Binds(NamedTuple):
    """A unit of work."""

    arithmetic: float  # seconds that its operations take at the best rate
    memory: float  # seconds that its bytes take
    what: str  # "arithmetic", "memory", "products" or "launch"


def rates(rows: Sequence[Row]) -> Rates | None:
    """The calibration of a run, if it has one."""

    def best(start: str) -> Row | None:
        return next((r for r in rows if r.case == "calibrate" and r.variant.startswith(start) and r.samples), None)

    gemm, copy = best("GEMM float32"), best("copy")
    if gemm is None or copy is None:
        return None
    return Rates(gemm.flops / summary(gemm.samples).median, copy.bytes / summary(copy.samples).median)


def binds(row: Row, machine: Rates) -> Binds:
    """What binds a program: what explains half of its time, or more.

    arithmetic, memory: its operations and bytes, at the machine's best rates. products: the same products by
    themselves, too small for that rate. launch: none of these; the time goes to starting operations, and around them.
    """
    arithmetic, memory = row.flops / machine.flops, row.bytes / machine.bytes
    half = summary(row.samples).median / 2
    what = "arithmetic" if arithmetic >= memory else "memory"
    if max(arithmetic, memory) <= half:
        what = "products" if row.limit is not None and row.limit > half else "launch"
    return Binds(arithmetic, memory, what)
