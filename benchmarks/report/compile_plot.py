"""Plot compile time and run time of the fastest form of nnjax for each variant."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.harness.record import OURS
from benchmarks.report.drawing import COLORS, WIDTH, set_titles, use_plain_numbers
from benchmarks.report.variants import Variant, compile_time, fastest_row, median_time

UNITS = 1000  # number of units of work whose time is compared with the compile time
ROW, TOP, BOTTOM, LEFT, RIGHT = 0.16, 0.78, 0.5, 3.1, 0.3  # inches


class CompileTime(NamedTuple):
    """Compile time and run time of nnjax's fastest form for a variant."""

    title: str
    compile: float  # seconds
    run: float  # seconds for `UNITS` units of work
    unit: str

    @property
    def units(self) -> float:
        """Return the number of units of work that take as long as compiling."""
        return UNITS * self.compile / self.run


def compile_times(variants: Sequence[Variant]) -> list[CompileTime]:
    """Return the times of all compiled variants, sorted by the number of units that take as long as compiling."""
    times = []
    for variant in variants:
        nnjax_row = fastest_row(variant.rows, OURS)
        if nnjax_row is not None and nnjax_row.case != "calibrate" and (seconds := compile_time(nnjax_row)):
            times.append(CompileTime(variant.title, seconds, UNITS * median_time(nnjax_row), nnjax_row.unit))
    return sorted(times, key=lambda time: time.units)


def draw_compile_times(variants: Sequence[Variant], machine: str) -> Any:
    """Draw compile times and run times, and return the figure; return None if nothing was compiled."""
    import matplotlib.pyplot as plt

    times = compile_times(variants)
    if not times:
        return None
    height = TOP + ROW * len(times) + BOTTOM
    figure = plt.figure(figsize=(WIDTH, height))
    inner = 1 - (LEFT + RIGHT) / WIDTH, ROW * len(times) / height
    axes = figure.add_axes((LEFT / WIDTH, BOTTOM / height, *inner))
    y = range(len(times), 0, -1)
    axes.hlines(y, [time.compile for time in times], [time.run for time in times], color="0.8", linewidth=1.2)
    axes.scatter([time.run for time in times], y, s=26, color=COLORS[OURS], zorder=3, label=f"{UNITS} steps or calls")
    axes.scatter(
        [time.compile for time in times], y, s=26, color="white", edgecolor=COLORS["PyTorch"], zorder=4, label="compile"
    )
    axes.set(xscale="log", xlabel="seconds", ylim=(0.4, len(times) + 0.6), yticks=list(y))
    axes.set_yticklabels([time.title for time in times], fontsize=8)
    axes.tick_params(axis="y", length=0)
    use_plain_numbers(axes.xaxis, (1,))
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    figure.legend(loc="upper right", frameon=False, ncols=2, fontsize=8.5)
    set_titles(
        figure,
        "Compile time against run time",
        f"nnjax's fastest form. At the top, compilation pays off soonest.\n{machine}",
    )
    return figure
