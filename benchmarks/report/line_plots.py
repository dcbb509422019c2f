"""Plot time against the number of members of an ensemble or of blocks of a deep network."""

import re
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

from benchmarks.harness.record import AGAIN, Row, find_rows
from benchmarks.report.drawing import COLORS, WIDTH, color_of, kind_of, set_titles, use_plain_numbers
from benchmarks.report.variants import compile_time, median_time, peer_label

STYLES = ("o-", "s--", "^:", "v-.")  # line styles of the peers of one kind


def draw_ensemble(rows: Sequence[Row], machine: str) -> Any:
    """Plot the time of one step of one member against the number of members; return None for fewer than 2 sizes."""
    shared = [row for row in find_rows(rows, case="ensemble") if "shared" in row.variant]
    return _draw_lines(
        shared,
        lambda row: median_time(row) * 1e6,
        x_label="members",
        y_label="µs for one step of one member",
        title="Training many small networks at once",
        subtitle=f"64-64-64-10 networks, batches of 32, shared data; lower is better.\n{machine}",
    )


def draw_depth(rows: Sequence[Row], machine: str) -> Any:
    """Plot the compile time in seconds against the number of blocks; return None for fewer than 2 sizes."""
    staged = [row for row in find_rows(rows, case="depth") if "compile" in row.stages]
    return _draw_lines(
        staged,
        compile_time,
        x_label="residual blocks",
        y_label="seconds to trace and compile",
        title="Compilation of deep networks",
        subtitle=f"Forms that scan over the blocks compile in constant time; lower is better.\n{machine}",
    )


def _draw_lines(
    rows: Sequence[Row], y: Callable[[Row], float], *, x_label: str, y_label: str, title: str, subtitle: str
) -> Any:
    """Return a figure with a line per form, against the first number in each variant's name; None for < 2 variants."""
    import matplotlib.pyplot as plt

    rows = [row for row in rows if row.samples and row.peer != AGAIN]
    if len({row.variant for row in rows}) < 2:
        return None
    figure, axes = plt.subplots(figsize=(WIDTH, 4.8))
    figure.subplots_adjust(left=0.075, right=0.73, top=0.82, bottom=0.11)
    styles = {kind: cycle(STYLES) for kind in COLORS}
    for peer, form in dict.fromkeys((row.peer, row.form) for row in rows):
        of_form = find_rows(rows, peer=peer, form=form)
        points = sorted((int(re.findall(r"\d+", row.variant)[0]), y(row)) for row in of_form)
        label = f"{peer_label(peer)}, {form}"
        style = next(styles.get(kind_of(peer), cycle(STYLES)))
        axes.plot(*zip(*points, strict=True), style, color=color_of(peer), markersize=5, linewidth=1.4, label=label)
    axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
    use_plain_numbers(axes.xaxis)
    use_plain_numbers(axes.yaxis)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    lines: list[Any] = sorted(axes.get_lines(), key=lambda line: -line.get_ydata()[-1])  # by last value, top to bottom
    figure.legend(handles=lines, loc="center left", bbox_to_anchor=(0.735, 0.46), handlelength=3, frameon=False,
                  fontsize=8.5)  # fmt: skip
    set_titles(figure, title, subtitle)
    return figure
