"""Write a run as Markdown, and update the generated sections of benchmarks/README.md."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.harness.record import AGAIN, OURS, Record, Row
from benchmarks.report.bottleneck import Rates, calibrated_rates, find_bottleneck
from benchmarks.report.break_even import break_even_lines
from benchmarks.report.stats import geometric_mean
from benchmarks.report.table import figure_lines
from benchmarks.report.variants import (
    GROUPS,
    Variant,
    fastest_in_group,
    fastest_row,
    first_run,
    form_label,
    format_seconds,
    lines_by_variant,
    median_time,
    peer_label,
    repeat_ratio,
)

FASTER = 0.95  # peers with smaller ratios are listed


def replace_section(text: str, name: str, section: str) -> str:
    """Return a Markdown text with one generated section replaced.

    Args:
      text: the document, which contains the two comments that mark the section.
      name: the name of the section in both comments.
      section: the new text between the comments.

    Raises:
      ValueError: if the document does not contain the section.
    """
    begin, end = markers(name)
    before, _, rest = text.partition(begin)
    _, separator, after = rest.partition(end)
    if not separator:
        raise ValueError(f"the document has no section between {begin!r} and {end!r}; add these two lines")
    return f"{before}{begin}\n\n{section}\n\n{end}{after}"


def markers(name: str) -> tuple[str, str]:
    """Return the comments that mark a generated section."""
    return f"<!-- begin {name}: written by python -m benchmarks report -->", f"<!-- end {name} -->"


def markdown_report(record: Record) -> str:
    """Return the description of the machine, the table and the lists of a run as Markdown."""
    variants = [variant for variant in lines_by_variant(record.rows) if fastest_row(variant.rows, OURS) is not None]
    rates = calibrated_rates(record.rows)
    parts = [
        machine_sentence(record.fingerprint),
        markdown_table(variants, rates),
        " ".join(summary_sentences(variants)),
    ]
    if figures := [f"- {line}" for line in (*figure_lines(record.rows), *break_even_lines(record.rows))]:
        parts.append("\n".join(figures))
    if faster := list(_faster_peers(variants)):
        intro = (
            f"Peers that take less than {FASTER} of nnjax's time. Brackets contain the 95 % interval over the rounds. "
            f'"{peer_label(AGAIN)}" is the ratio of its second process to its first, which shows further noise:'
        )
        parts += [intro, "\n".join(faster)]
    return "\n\n".join(part for part in parts if part)


def machine_sentence(fingerprint: dict[str, Any]) -> str:
    """Return a sentence that states the machine and the software of a run."""
    packages = ", ".join(f"{name} {version}" for name, version in fingerprint["packages"].items() if version)
    commit = (fingerprint["commit"] or "")[:7]
    return f"Measured on {machine_name(fingerprint)}: Python {fingerprint['python']}, {packages}; commit {commit}."


def machine_name(fingerprint: dict[str, Any]) -> str:
    """Return the number of cores and the names of the processor and the accelerators."""
    processor = fingerprint["processor"].replace("(R)", "").replace("  ", " ")
    devices = [device for device in fingerprint["devices"] if not device.startswith("cpu")]
    return ", ".join([f"{fingerprint['cores']} cores of {processor}", *devices])


def markdown_table(variants: Sequence[Variant], rates: Rates | None) -> str:
    """Return a table of all variants with nnjax's fastest form and the ratio of each group's fastest peer."""
    header = ("", "nnjax", "limit / nnjax", "bottleneck", *GROUPS)
    text = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for variant in variants:
        nnjax_row = _nnjax_row(variant)
        best = [fastest_in_group(variant.lines, peers) for peers in GROUPS.values()]
        ratios = ["" if b is None else f"{b[1].value:.2f} {form_label(b[0])}" for b in best]
        share = "" if nnjax_row.limit is None else f"{nnjax_row.limit / median_time(nnjax_row):.2f}"
        bottleneck = find_bottleneck(nnjax_row, rates).name if rates and (nnjax_row.flops or nnjax_row.bytes) else ""
        cells = (
            variant.title,
            f"{format_seconds(median_time(nnjax_row))}, {nnjax_row.form}",
            share,
            bottleneck,
            *ratios,
        )
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def summary_sentences(variants: Sequence[Variant]) -> list[str]:
    """Return sentences that state geometric means over the variants, and the noise."""
    ratios, limits, repeats = [], [], []
    for variant in variants:
        nnjax_row = _nnjax_row(variant)
        best = [fastest_in_group(variant.lines, peers) for peers in GROUPS.values()]
        if any(best):
            ratios.append(min(b[1].value for b in best if b is not None))
            limits += [(ratios[-1], nnjax_row.limit / median_time(nnjax_row))] if nnjax_row.limit else []
        if repeat := repeat_ratio(variant.rows):
            repeats.append(repeat)
    text = []
    if ratios:
        text.append(
            f"Geometric mean over all lines: the fastest peer takes {geometric_mean(ratios):.2f} × nnjax's time."
        )
    if limits:
        ratio = geometric_mean([ratio for ratio, _ in limits])
        above = geometric_mean([ratio / share for ratio, share in limits])
        text.append(f"Over the lines with a limit it takes {ratio:.2f} × nnjax's time and {above:.2f} × the limit.")
    if repeats:
        noise = np.quantile([max(repeat, 1 / repeat) for repeat in repeats], 0.9)
        text.append(f"Noise: on 9 of 10 lines, two processes of nnjax differ by at most a factor of {noise:.2f}.")
    return text


def _faster_peers(variants: Sequence[Variant]) -> Iterator[str]:
    """Yield a list item for each group whose fastest peer takes less than `FASTER` of nnjax's time."""
    for variant in variants:
        repeat = repeat_ratio(variant.rows)
        for peers in GROUPS.values():
            best = fastest_in_group(variant.lines, peers)
            if best is not None and best[1].value < FASTER:
                row, ratio = best
                noise = f"; {peer_label(AGAIN)} {repeat:.2f}" if repeat else ""
                interval = f"[{ratio.low:.2f}, {ratio.high:.2f}]"
                yield f"- {variant.title}: {form_label(row)}, {ratio.value:.2f} {interval}{noise}"
        yield from _faster_with_compilation(variant)


def _faster_with_compilation(variant: Variant) -> Iterator[str]:
    """Yield a list item for each form whose first run, with compilation, takes less than `FASTER` of nnjax's time."""
    whole_runs = [row for row in variant.rows if row.samples and row.figures]
    nnjax_seconds = min((first_run(row) for row in whole_runs if row.peer == OURS), default=0.0)
    for row in (row for row in whole_runs if row.peer not in (OURS, AGAIN)):
        if (seconds := first_run(row)) < FASTER * nnjax_seconds:
            yield f"- {variant.title}, with compilation: {form_label(row)}, {seconds / nnjax_seconds:.2f}"


def _nnjax_row(variant: Variant) -> Row:
    nnjax_row = fastest_row(variant.rows, OURS)
    assert nnjax_row is not None
    return nnjax_row
