"""Show a run in the terminal: a table for each variant, and lines about the whole run."""

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.harness.record import AGAIN, LIMIT, OURS, Row
from benchmarks.report.bottleneck import calibrated_rates, find_bottleneck
from benchmarks.report.datasheet import find_peaks
from benchmarks.report.stats import summarise
from benchmarks.report.variants import (
    Line,
    Variant,
    compile_time,
    fastest_row,
    first_run,
    form_label,
    format_seconds,
    median_time,
    title_of,
)

LONGEST = 200  # maximum number of characters of an error message that are shown

HEADERS = ("", "time", "quartiles", "time / nnjax", "limit", "compile", "memory")


def terminal_table(variant: Variant) -> Any:
    """Return a rich table that fits into 80 columns."""
    from rich.table import Table

    title = f"{variant.title}, time for one {variant.rows[0].unit}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for header in HEADERS:
        table.add_column(header, no_wrap=bool(header), justify="right" if header else "left")
    for line in (line for line in variant.lines if line.row.samples):
        style = {OURS: "bold", AGAIN: "dim", LIMIT: "italic"}.get(line.row.peer)
        table.add_row(*table_cells(line), style=style)
    return table


def table_cells(line: Line) -> tuple[str, ...]:
    """Return the cells of a measured line."""
    row, ratio = line
    times = summarise(row.samples)
    quartiles = f"-{1 - times.low / times.median:.0%} +{times.high / times.median - 1:.0%}"
    against = "" if ratio is None else f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
    share = "" if row.limit is None else f"{row.limit / times.median:.0%}"
    compile_seconds = format_seconds(compile_time(row)) if compile_time(row) else ""
    peak = row.memory.get("device peak", row.memory.get("peak"))
    memory = "" if peak is None else _bytes(peak)
    return form_label(row), format_seconds(times.median), quartiles, against, share, compile_seconds, memory


def calibration_lines(rows: Sequence[Row], device: str) -> Iterator[str]:
    """Yield each measured rate of the machine, compared with the device's data sheet if it is known."""
    peaks = find_peaks(device)
    for row in rows:
        if row.case == "calibrate" and row.samples and (row.flops or row.bytes):
            dtype = next((name for name in ("bfloat16", "tf32") if name in row.variant), "float32")
            peak = peaks and (getattr(peaks, dtype) if row.flops else peaks.bandwidth)
            rate = (row.flops or row.bytes) / median_time(row)
            share = f", {rate / peak:.0%} of the data sheet's {_giga(peak)}" if peak else ""
            yield f"{row.variant}: {_giga(rate)} {'GFLOP/s' if row.flops else 'GB/s'}{share}"


def bottleneck_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the bottleneck of nnjax's fastest form, for each variant whose operations or bytes are counted."""
    rates = calibrated_rates(rows)
    for title in dict.fromkeys(map(title_of, rows)):
        nnjax_row = fastest_row([row for row in rows if title_of(row) == title], OURS)
        if rates and nnjax_row and (nnjax_row.flops or nnjax_row.bytes) and nnjax_row.case != "calibrate":
            bottleneck = find_bottleneck(nnjax_row, rates)
            parts = f"arithmetic {format_seconds(bottleneck.arithmetic)}, memory {format_seconds(bottleneck.memory)}"
            yield f"{title}: {parts} of {format_seconds(median_time(nnjax_row))}; bottleneck: {bottleneck.name}"


def figure_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the further results of each row, such as accuracies, and its times with and without compilation."""
    for row in (row for row in rows if row.samples and row.figures and row.peer != AGAIN):
        figures = ", ".join(f"{name} {value:.4g}" for name, value in row.figures.items())
        times = (
            f"{format_seconds(median_time(row))} for a {row.unit}, {format_seconds(first_run(row))} with compilation"
        )
        yield f"{title_of(row)}: {form_label(row)}: {figures}; {times}"


def unmeasured_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each kind of failure, and one line for all forms that cannot run here (ValueError)."""
    problems = [(row, row.problem.strip().splitlines()[0]) for row in rows if row.problem]
    refusals = [problem for _, problem in problems if problem.startswith("ValueError")]
    failures: dict[str, list[Row]] = {}
    for row, problem in problems:
        if problem not in refusals:
            failures.setdefault(f"{form_label(row)}: {problem[:LONGEST]}", []).append(row)
    for failure, failed in failures.items():
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        yield f"failed: {title_of(failed[0])}{more}: {failure}"
    if refusals:
        yield f"{len(refusals)} forms cannot run here and were not measured; results.json says why"


def _giga(rate: float) -> str:
    return f"{float(f'{rate / 1e9:.3g}'):,g}"


def _bytes(size: int) -> str:
    unit, scale = next(((u, s) for u, s in (("GB", 1e9), ("MB", 1e6)) if size >= s), ("kB", 1e3))
    return f"{size / scale:.3g} {unit}"
