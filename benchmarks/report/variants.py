"""Group the rows of a run by variant, with labels, times and ratios for tables."""

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.harness.record import AGAIN, OURS, Row
from benchmarks.report.stats import Ratio, median_ratio, summarise

GROUPS = {
    "JAX by hand": ("plain JAX",),
    "JAX libraries": ("Flax linen", "Flax nnx", "Haiku", "Equinox", "stax", "optax"),
    "PyTorch": ("torch eager", "torch.compile", "torch.func", "Optuna, torch eager"),
    "scikit-learn": ("scikit-learn",),
}


class Line(NamedTuple):
    """A row of results and its ratio to nnjax, for a line of a table."""

    row: Row
    ratio: Ratio | None  # time / time of nnjax's fastest form; None if they were not measured in the same rounds


class Variant(NamedTuple):
    """A variant of a case with its results."""

    title: str
    lines: list[Line]

    @property
    def rows(self) -> list[Row]:
        """Return the rows without their ratios."""
        return [line.row for line in self.lines]


def lines_by_variant(rows: Sequence[Row]) -> list[Variant]:
    """Return all variants in the order of the rows; the lines of each are sorted, fastest first, unmeasured last."""
    variants = []
    for title in dict.fromkeys(title_of(row) for row in rows):
        variant_rows = [row for row in rows if title_of(row) == title]
        nnjax_row = fastest_row(variant_rows, OURS)
        lines = [Line(row, _ratio_to(nnjax_row, row)) for row in variant_rows]
        variants.append(Variant(title, sorted(lines, key=lambda line: median_time(line.row))))
    return variants


def title_of(row: Row) -> str:
    """Return the title of a row's variant, "case: variant"."""
    return f"{row.case}: {row.variant}"


def peer_label(peer: str) -> str:
    """Return the name of a peer for reports, in which "ours" becomes "nnjax"."""
    return {OURS: "nnjax", AGAIN: "nnjax again"}.get(peer, peer)


def form_label(row: Row) -> str:
    """Return the label of a row, "peer, form"."""
    return f"{peer_label(row.peer)}, {row.form}"


def fastest_row(rows: Sequence[Row], peer: str) -> Row | None:
    """Return the row of a peer's fastest form, or None if the peer was not measured."""
    return min((row for row in rows if row.peer == peer and row.samples), key=median_time, default=None)


def fastest_in_group(lines: Sequence[Line], peers: Sequence[str]) -> tuple[Row, Ratio] | None:
    """Return the fastest row among several peers with its ratio, or None if no such peer was measured."""
    for row, ratio in lines:
        if row.peer in peers and row.samples and ratio is not None:
            return row, ratio
    return None


def repeat_ratio(rows: Sequence[Row]) -> float | None:
    """Return the time of nnjax's second process divided by that of its first, or None if not measured."""
    again = next((row for row in rows if row.peer == AGAIN and row.samples), None)
    nnjax_rows = [row for row in rows if again and row.peer == OURS and row.form == again.form and row.samples]
    return median_time(again) / median_time(nnjax_rows[0]) if again and nnjax_rows else None


def median_time(row: Row) -> float:
    """Return the median in seconds, or infinity if the row was not measured."""
    return summarise(row.samples).median if row.samples else float("inf")


def compile_time(row: Row) -> float:
    """Return the time for tracing, lowering and compiling in seconds, or 0 if it is unknown or nothing is compiled."""
    return sum(row.stages.get(stage, 0.0) for stage in ("trace", "lower", "compile"))


def first_run(row: Row) -> float:
    """Return the duration of a first whole run in seconds, including compilation.

    If compile times are unknown, return the duration of the first call for nnjax. For other peers, return the median,
    because a peer without compile times compiles nothing.
    """
    if seconds := compile_time(row):
        return median_time(row) + seconds
    return max(median_time(row), row.stages.get("first", 0.0)) if row.peer in (OURS, AGAIN) else median_time(row)


def format_seconds(time: float) -> str:
    """Format a time with three significant digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if time >= size or unit == "ns":
            return f"{float(f'{time / size:.3g}'):g} {unit}"
    raise AssertionError


def _ratio_to(reference: Row | None, row: Row) -> Ratio | None:
    if reference is None or len(row.samples) != len(reference.samples):
        return None
    return median_ratio(row.samples, reference.samples)
