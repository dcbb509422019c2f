"""The rows of a run as tables: in the terminal, and in Markdown for documents."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness.record import Row
from benchmarks.report.bottleneck import binds, rates
from benchmarks.report.datasheet import peaks
from benchmarks.report.regression import AGAIN
from benchmarks.report.stats import Ratio, geometric_mean, ratio, summary

OURS, LIMIT = "ours", "limit"
GROUPS = {
    "JAX by hand": ("plain JAX",),
    "JAX libraries": ("Flax linen", "Flax nnx", "Haiku", "Equinox", "stax", "optax"),
    "PyTorch": ("torch eager", "torch.compile", "torch.func"),
    "scikit-learn": ("scikit-learn",),
}
SLOWER = 0.95
HEAD = ("", "time", "quartiles", "against ours", "limit", "compile", "memory")


class Line(NamedTuple):
    """One row of a table."""

    row: Row
    against: Ratio | None  # its time over that of our fastest form; None where one of them has none


def variants(rows: Sequence[Row]) -> Iterator[tuple[str, list[Line]]]:
    """Each variant with its lines, the fastest first; what was not measured last."""
    for title in dict.fromkeys(f"{row.case}: {row.variant}" for row in rows):
        these = [row for row in rows if f"{row.case}: {row.variant}" == title]
        best = fastest(these, OURS)
        lines = [
            Line(row, ratio(row.samples, best.samples) if best and len(row.samples) == len(best.samples) else None)
            for row in these
        ]
        yield title, sorted(lines, key=lambda line: _median(line.row))


def fastest(rows: Sequence[Row], peer: str) -> Row | None:
    """A peer's fastest form."""
    return min((row for row in rows if row.peer == peer and row.samples), key=_median, default=None)


def cells(line: Line) -> tuple[str, ...]:
    """A line that was measured as text."""
    row = line.row
    name = f"{row.peer}, {row.form}"
    times = summary(row.samples)
    against = (
        "" if line.against is None else f"{line.against.value:.2f} [{line.against.low:.2f}, {line.against.high:.2f}]"
    )
    share = "" if row.limit is None else f"{row.limit / times.median:.0%}"
    compiled = _compiling(row)
    low, high = seconds(times.low).partition(" "), seconds(times.high)
    spread = f"{low[0] if high.endswith(low[2]) else ' '.join(low[::2])} – {high}"
    peak = row.memory.get("device peak", row.memory.get("peak"))
    memory = "" if peak is None else f"{peak / 1e6:.3g} MB"
    return name, seconds(times.median), spread, against, share, seconds(compiled) if compiled else "", memory


def seconds(time: float) -> str:
    """A time with its unit and three digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if time >= size or unit == "ns":
            return f"{float(f'{time / size:.3g}'):g} {unit}"
    raise AssertionError


def terminal(title: str, lines: Sequence[Line]) -> Any:
    """A table for rich."""
    from rich.table import Table

    unit = lines[0].row.unit
    missing = [line.row for line in lines if not line.row.samples]
    why = [f"{row.peer}, {row.form}: not measured: {(row.problem or '').partition(chr(10))[0]}" for row in missing]
    title, caption = f"{title}, a {unit}", "\n".join(why) or None
    table = Table(*HEAD, title=title, title_justify="left", caption=caption, caption_justify="left")
    for column in table.columns:
        column.no_wrap = column.header not in ("quartiles", "against ours")
    for line in (line for line in lines if line.row.samples):
        style = {OURS: "bold", AGAIN: "dim", LIMIT: "italic"}.get(line.row.peer)
        table.add_row(*cells(line), style=style)
    return table


def calibrated(rows: Sequence[Row], device: str) -> Iterator[str]:
    """What the calibration found, beside the device's data sheet where it is known."""
    sheet = peaks(device)
    for row in rows:
        if row.case == "calibrate" and row.samples and (row.flops or row.bytes):
            dtype = next((name for name in ("bfloat16", "tf32") if name in row.variant), "float32")
            promised = sheet and (getattr(sheet, dtype) if row.flops else sheet.bandwidth)
            rate = (row.flops or row.bytes) / _median(row)
            of = f", {rate / promised:.0%} of the data sheet's {_giga(promised)}" if promised else ""
            yield f"{row.variant}: {_giga(rate)} {'GFLOP/s' if row.flops else 'GB/s'}{of}"


def bound(rows: Sequence[Row]) -> Iterator[str]:
    """For each variant whose operations were counted, what binds our fastest form."""
    machine = rates(rows)
    for title, lines in variants(rows):
        best = fastest([line.row for line in lines], OURS)
        if machine and best and (best.flops or best.bytes) and best.case != "calibrate":
            found = binds(best, machine)
            needs = f"arithmetic {seconds(found.arithmetic)}, memory {seconds(found.memory)}"
            yield f"{title}: {needs}, of {seconds(_median(best))}: bound by {found.what}"


def besides(rows: Sequence[Row]) -> Iterator[str]:
    """What was found besides times, where a case has more to say, and what a first run takes with its compilation."""
    for title, lines in variants(rows):
        for row in (line.row for line in lines if line.row.samples and line.row.figures and line.row.peer != AGAIN):
            found = ", ".join(f"{name} {value:.4g}" for name, value in row.figures.items())
            times = f"{seconds(_median(row))} a {row.unit}, {seconds(_with_compilation(row))} with compilation"
            yield f"{title}: {row.peer}, {row.form}: {found}; {times}"


def taken_on(fingerprint: dict[str, Any]) -> str:
    """The machine and the software of a run in a sentence."""
    packages = ", ".join(f"{name} {found}" for name, found in fingerprint["packages"].items() if found)
    machine = f"{fingerprint['cores']} cores of {fingerprint['processor']}, {', '.join(fingerprint['devices'])}"
    return f"Measured on {machine}: Python {fingerprint['python']}, {packages}; at {(fingerprint['commit'] or '')[:7]}."


def markdown(rows: Sequence[Row]) -> str:
    """One line a variant: our fastest form, and the fastest of each group of peers as a multiple of it; what is slower.

    Args:
      rows: of a run.
    """
    head = ("", "ours", "of the limit", "bound by", *GROUPS)
    text = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    slower, multiples, limited, pairs, machine = [], [], [], [], rates(rows)
    for title, lines in variants(rows):
        best = fastest([line.row for line in lines], OURS)
        if best is None:
            continue
        found = [_fastest_of(lines, group) for group in GROUPS.values()]
        cells = ["" if each is None else f"{each[1].value:.2f} {each[0].peer}, {each[0].form}" for each in found]
        times = [each[1].value for each in found if each is not None]
        noise = _again([line.row for line in lines])
        pairs += [noise] if noise else []
        slower += [
            f"- {title}: {each[0].peer}, {each[0].form}, {by.value:.2f} [{by.low:.2f}, {by.high:.2f}]"
            f"{f'; {AGAIN} {noise:.2f}' if noise else ''}"
            for each in found
            if each is not None and (by := each[1]).value < SLOWER
        ]
        slower += list(_slower_with_compilation(title, [line.row for line in lines]))
        multiples += [min(times)] if times else []
        limited += [(min(times), best.limit / _median(best))] if times and best.limit else []
        share = "" if best.limit is None else f"{best.limit / _median(best):.2f}"
        what = binds(best, machine).what if machine and (best.flops or best.bytes) else ""
        text.append(f"| {title} | {seconds(_median(best))}, {best.form} | {share} | {what} | {' | '.join(cells)} |")
    if multiples:
        mean = geometric_mean(multiples)
        text.append(f"\nThe fastest peer of each line takes {mean:.2f} times as long as ours, in the geometric mean.")
    if limited:
        ours, limit = geometric_mean([by for by, _ in limited]), geometric_mean([by / share for by, share in limited])
        text[-1] += f" Over the lines with a limit: {ours:.2f} × ours, and {limit:.2f} × the limit."
    if pairs:
        apart = np.quantile([max(each, 1 / each) for each in pairs], 0.9)
        text[-1] += f" Two processes of ours lie up to {apart:.2f} × apart on 9 of 10 lines: that is the noise."
    if more := list(besides(rows)):
        text.append("\n".join(["", *(f"- {line}" for line in more)]))
    if slower:
        said = (
            f"Where a peer takes less than {SLOWER} of our time, with an interval of 95 % over the rounds; "
            f"{AGAIN}: what a second process of ours takes, the noise that the interval does not know:"
        )
        text.append("\n".join(["", said, "", *slower]))
    return "\n".join(text)


def _fastest_of(lines: Sequence[Line], peers: Sequence[str]) -> tuple[Row, Ratio] | None:
    """The fastest of some peers, and its time as a multiple of ours."""
    for line in lines:
        if line.row.peer in peers and line.row.samples and line.against is not None:
            return line.row, line.against
    return None


def _again(rows: Sequence[Row]) -> float | None:
    """The time of the second process of ours as a multiple of the first one's, in the same form."""
    again = next((row for row in rows if row.peer == AGAIN and row.samples), None)
    same = [row for row in rows if again and row.peer == OURS and row.form == again.form and row.samples]
    return _median(again) / _median(same[0]) if again and same else None


def _slower_with_compilation(title: str, rows: Sequence[Row]) -> Iterator[str]:
    """Whom a first run is faster with, where runs are whole ones; a single measurement each, without an interval."""
    whole = [row for row in rows if row.samples and row.figures]
    ours = min((_with_compilation(row) for row in whole if row.peer == OURS), default=0.0)
    for row in (row for row in whole if row.peer not in (OURS, AGAIN)):
        if (times := _with_compilation(row)) < SLOWER * ours:
            yield f"- {title}, with compilation: {row.peer}, {row.form}, {times / ours:.2f}"


def _with_compilation(row: Row) -> float:
    return _median(row) + _compiling(row)


def _compiling(row: Row) -> float:
    return sum(row.stages.get(stage, 0.0) for stage in ("trace", "lower", "compile"))


def _median(row: Row) -> float:
    return summary(row.samples).median if row.samples else float("inf")


def _giga(rate: float) -> str:
    return f"{float(f'{rate / 1e9:.3g}'):,g}"
