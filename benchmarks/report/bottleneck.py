"""Find the bottleneck of a program: arithmetic, memory, small matrix products or overhead."""

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.harness.record import Row
from benchmarks.report.stats import summarise


class Rates(NamedTuple):
    """Highest rates of the machine, measured by the calibration."""

    flops: float  # float32 operations per second in a large matrix product
    bytes: float  # bytes per second for arrays that are larger than the caches


class Bottleneck(NamedTuple):
    """The bottleneck of one unit of work."""

    arithmetic: float  # seconds for the operations at the highest rate
    memory: float  # seconds for the memory traffic at the highest rate
    name: str  # "arithmetic", "memory", "small products" or "overhead"


def calibrated_rates(rows: Sequence[Row]) -> Rates | None:
    """Return the rates that the calibration of this run measured, or None if there was none."""

    def calibration(prefix: str) -> Row | None:
        return next((r for r in rows if r.case == "calibrate" and r.variant.startswith(prefix) and r.samples), None)

    gemm, copy = calibration("GEMM float32"), calibration("copy")
    if gemm is None or copy is None:
        return None
    return Rates(gemm.flops / summarise(gemm.samples).median, copy.bytes / summarise(copy.samples).median)


def find_bottleneck(row: Row, rates: Rates) -> Bottleneck:
    """Find the bottleneck that explains more than half of a program's time.

    It is "arithmetic" or "memory" if the operations or the memory traffic take that long at the machine's highest
    rates. It is "small products" if the measured matrix products alone take that long, because they are too small for
    these rates. Otherwise it is "overhead", such as starting operations.
    """
    arithmetic, memory = row.flops / rates.flops, row.bytes / rates.bytes
    half = summarise(row.samples).median / 2
    name = "arithmetic" if arithmetic >= memory else "memory"
    if max(arithmetic, memory) <= half:
        name = "small products" if row.limit is not None and row.limit > half else "overhead"
    return Bottleneck(arithmetic, memory, name)
