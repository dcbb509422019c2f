"""Plot the time of all peers relative to nnjax's, one row per variant, grouped by case."""

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import Any

from benchmarks.harness.record import AGAIN, LIMIT, OURS
from benchmarks.report.drawing import COLORS, WIDTH, color_of, kind_of, set_titles
from benchmarks.report.stats import Ratio
from benchmarks.report.variants import GROUPS, Variant, fastest_row, format_seconds, median_time

ROW, GAP = 0.143, 0.08  # inches: height of a row, and space between cases
TOP, BOTTOM, LEFT, RIGHT = 0.97, 0.34, 3.5, 0.2  # inches around the axes
LARGEST = 20.0  # ratios above this and below its inverse are drawn at the edge
EXPLANATION = (
    "Fastest form of each peer ÷ fastest form of nnjax, median times. Right of 1, nnjax is faster. "
    "Bars: 95 % intervals over the rounds."
)


def draw_ratios(variants: Sequence[Variant], machine: str) -> Any:
    """Draw the ratios and return the figure; return None if no peer was measured."""
    import matplotlib.pyplot as plt

    rows = [(variant, ratios) for variant in variants if (ratios := peer_ratios(variant))]
    if not rows:
        return None
    cases = [list(group) for _, group in groupby(rows, key=lambda row: row[0].rows[0].case)]
    inner = ROW * len(rows) + GAP * (len(cases) - 1)
    height = TOP + inner + BOTTOM
    figure = plt.figure(figsize=(WIDTH, height))
    axes = figure.add_axes((LEFT / WIDTH, BOTTOM / height, 1 - (LEFT + RIGHT) / WIDTH, inner / height))
    y = inner
    for case_rows in cases:
        top = y
        for variant, ratios in sorted(case_rows, key=lambda row: min(ratio.value for ratio in row[1].values())):
            _draw_row(axes, y - ROW / 2, variant, ratios)
            y -= ROW
        axes.axhspan(y, top, color="0.965", zorder=0, linewidth=0)
        _label(axes, -LEFT + 0.12, top - ROW / 2, case_rows[0][0].rows[0].case, weight="bold")
        y -= GAP
    axes.axvline(1, color="black", linewidth=1, zorder=1)
    axes.set(xscale="log", xlim=(1 / LARGEST, LARGEST), ylim=(0, inner), yticks=[])
    ticks = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="x", color="0.85", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="x", length=0, labelsize=8.5)
    for x, align, text in ((0.93, "right", "← peer is faster"), (1.07, "left", "nnjax is faster →")):
        axes.annotate(
            text, (x, inner), (0, 5), textcoords="offset points", ha=align, fontsize=8.5, color="0.35",
        )  # fmt: skip
    _label(axes, -0.1, inner + 0.12, "nnjax", ha="right", color="0.35")
    _draw_legend(axes, figure, [ratios for _, ratios in rows])
    set_titles(figure, "Time of other libraries as a multiple of nnjax's time", f"{EXPLANATION}\n{machine}")
    return figure


def peer_ratios(variant: Variant) -> dict[str, Ratio]:
    """Return the time of each peer's fastest form divided by the time of nnjax's fastest form."""
    ratios: dict[str, Ratio] = {}
    for row, ratio in variant.lines:  # sorted, fastest first
        if ratio is not None and row.samples and row.peer not in (OURS, AGAIN, LIMIT):
            ratios.setdefault(row.peer, ratio)
    return ratios


def _draw_row(axes: Any, y: float, variant: Variant, ratios: dict[str, Ratio]) -> None:
    nnjax_row = fastest_row(variant.rows, OURS)
    assert nnjax_row is not None
    _label(axes, -LEFT + 1.12, y, nnjax_row.variant.replace(", shared data", ""))
    _label(axes, -0.1, y, format_seconds(median_time(nnjax_row)), ha="right", color="0.35")
    fastest: set[str] = set()
    beyond = 0
    for peer, ratio in ratios.items():
        is_fastest = kind_of(peer) not in fastest  # highlight the fastest peer of each kind, as in the tables
        fastest.add(kind_of(peer))
        x = min(max(ratio.value, 1 / LARGEST), LARGEST)
        style = {"s": 26, "zorder": 4} if is_fastest else {"s": 9, "zorder": 3, "alpha": 0.75}
        is_beyond = x != ratio.value
        marker = "o" if not is_beyond else ">" if x > 1 else "<"
        axes.scatter(x, y, color=color_of(peer), marker=marker, linewidths=0, clip_on=False, **style)
        if is_beyond and is_fastest:
            side, align = (-1, "right") if x > 1 else (1, "left")
            text = f"{ratio.value:.0f} ×" if x > 1 else f"{ratio.value:.2g} ×"
            axes.annotate(text, (x, y), (side * (6 + 26 * beyond), 0), textcoords="offset points",
                          ha=align, va="center", fontsize=8, color=color_of(peer))  # fmt: skip
            beyond += 1
        elif is_fastest:
            axes.plot([ratio.low, min(ratio.high, LARGEST)], [y, y], color=color_of(peer), linewidth=1.2, zorder=2)


def _label(
    axes: Any, x: float, y: float, text: str, *, ha: str = "left", color: str = "black", weight: str = "normal"
) -> None:
    """Write text `x` inches to the right of the left edge of the axes."""
    width = WIDTH - LEFT - RIGHT
    axes.text(x / width, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8, ha=ha, color=color,
              fontweight=weight)  # fmt: skip


def _draw_legend(axes: Any, figure: Any, rows: Sequence[dict[str, Ratio]]) -> None:
    """Draw a legend of colours and sizes to the right of the title."""
    from matplotlib.lines import Line2D

    kinds = {kind_of(peer) for ratios in rows for peer in ratios}
    dot = partial(Line2D, [], [], marker="o", linestyle="")
    handles = [dot(color=COLORS[kind], label=kind, markersize=5.5) for kind in GROUPS if kind in kinds]
    if any(len({kind_of(peer) for peer in ratios}) < len(ratios) for ratios in rows):
        handles.append(dot(color="0.5", label="slower peer of a kind", markersize=3))
    figure.legend(handles=handles, loc="upper right", ncols=3, fontsize=8, frameon=False, handletextpad=0.1,
                  columnspacing=1.0, borderaxespad=0.2)  # fmt: skip
