"""Write the main results of a run as a self-contained HTML page with its pictures."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from benchmarks.harness.record import OURS, Record, Row
from benchmarks.report.bottleneck import calibrated_rates, find_bottleneck
from benchmarks.report.compile_plot import UNITS, compile_times
from benchmarks.report.document import machine_name, machine_sentence, summary_sentences
from benchmarks.report.ensemble_size import doubling_sizes
from benchmarks.report.table import calibration_lines, unmeasured_lines
from benchmarks.report.variants import (
    GROUPS,
    Variant,
    fastest_in_group,
    fastest_row,
    form_label,
    format_seconds,
    lines_by_variant,
    median_time,
)
from nnjax.cli import html_page as html

CAPTIONS = {
    "ratios": "Each dot is the fastest form of a library for one variant. Right of 1, nnjax is faster.",
    "roofline": "Each dot is the fastest form of a library for one variant. The lines are limits measured in this run.",
    "ensemble": "Time of one member's step. A flat line means that twice the members take twice the time.",
    "compile": f"Filled: the time of {UNITS} steps or calls. Hollow: the time to compile them, once.",
    "depth": "Seconds to trace and compile a network of residual blocks.",
}


def web_page(record: Record, pictures: Sequence[Path]) -> bytes:
    """Return the HTML page: the machine and its limits, the pictures, all ratios to peers, and compile times."""
    rows, fingerprint = record.rows, record.fingerprint
    variants = [variant for variant in lines_by_variant(rows) if fastest_row(variant.rows, OURS) is not None]
    limits = [line.split(": ", 1) for line in calibration_lines(rows, fingerprint["devices"][0])]
    figures = [
        (path.stem, path.read_bytes(), CAPTIONS[path.stem])
        for path in sorted(pictures, key=lambda path: [*CAPTIONS].index(path.stem))
    ]
    body = [
        html.header(
            f"nnjax on {machine_name(fingerprint)}", machine_sentence(fingerprint), *summary_sentences(variants)
        ),
        html.columns(
            html.section("Limits of this machine", html.table((), limits)),
            html.section("Members of an ensemble that double the time of one", _doubling_table(rows)),
        ),
        html.section("Pictures", html.pictures(figures)),
        html.section(
            "All variants",
            html.paragraph(
                "The time of nnjax's fastest form; then, for each group of libraries, the time of the fastest form as "
                "a multiple of it. Below 1 the other library is faster.",
                faint=True,
            ),
            _ratio_table(variants, rows),
        ),
        html.section(f"Compiling, and {UNITS} units of work", _compile_table(variants)),
        html.section("Not measured", *map(html.paragraph, unmeasured_lines(rows))),
        html.paragraph(f"Written by python -m benchmarks on {date.today():%d %B %Y}.", faint=True),
    ]
    return html.page(f"nnjax on {machine_name(fingerprint)}", body)


def _ratio_table(variants: Sequence[Variant], rows: Sequence[Row]) -> str:
    rates = calibrated_rates(rows)
    lines = []
    for variant in variants:
        nnjax_row = fastest_row(variant.rows, OURS)
        assert nnjax_row is not None
        share = "" if nnjax_row.limit is None else f"{nnjax_row.limit / median_time(nnjax_row):.0%}"
        counted = rates is not None and bool(nnjax_row.flops or nnjax_row.bytes)
        bottleneck = find_bottleneck(nnjax_row, rates).name if rates and counted else ""
        best = [fastest_in_group(variant.lines, peers) for peers in GROUPS.values()]
        ratios = ["" if fastest is None else f"{fastest[1].value:.2f} {form_label(fastest[0])}" for fastest in best]
        lines.append(
            (variant.title, f"{format_seconds(median_time(nnjax_row))}, {nnjax_row.form}", share, bottleneck, *ratios)
        )
    return html.table(("", "nnjax", "of the limit", "bottleneck", *GROUPS), lines)


def _doubling_table(rows: Sequence[Row]) -> str:
    largest = max((int(row.variant.split()[0]) for row in rows if row.case == "ensemble" and row.samples), default=0)
    return html.table(
        ("form", "a step of one network", "members"),
        [
            (label, format_seconds(single), f"{members:.3g}" if members < float("inf") else f"more than {largest}")
            for label, single, members in doubling_sizes(rows)
        ],
    )


def _compile_table(variants: Sequence[Variant]) -> str:
    return html.table(
        ("variant", "compile", f"{UNITS} units", "units that take as long as compiling"),
        [
            (time.title, format_seconds(time.compile), format_seconds(time.run), f"{time.units:,.0f} {time.unit}s")
            for time in compile_times(variants)
        ],
    )
