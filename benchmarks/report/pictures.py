"""The rows of a run as pictures."""

import re
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.harness.record import Row, find
from benchmarks.report.regression import AGAIN
from benchmarks.report.stats import ratio, summary
from benchmarks.report.table import GROUPS, LIMIT, OURS, fastest

PEERS = [*(name for group in GROUPS.values() for name in group), LIMIT]  # each has its colour in all pictures
STYLES = ("o-", "s--", "^:", "v-.")  # of a peer's forms
STAGES = ("trace", "lower", "compile")


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Writes each picture for which there are rows."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    written = []
    pictures: dict[str, Callable[[Sequence[Row], Any], bool]] = {
        "roofline": roofline, "ratios": ratios, "ensemble": ensemble, "depth": depth,
    }  # fmt: skip
    for name, picture in pictures.items():
        figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
        if picture(rows, axes):
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=120)
            written.append(path)
        plt.close(figure)
    return written


def roofline(rows: Sequence[Row], axes: Any) -> bool:
    """Operations a second against operations a byte, under the roofs that this run measured."""
    gemm = [row for row in find(rows, case="calibrate") if row.variant.startswith("GEMM float32") and row.samples]
    copy = [row for row in find(rows, case="calibrate") if row.variant.startswith("copy") and row.samples]
    points = [row for row in rows if row.flops and row.bytes and row.samples and row.peer != AGAIN]
    if not gemm or not copy or not points:
        return False
    peak = gemm[0].flops / summary(gemm[0].samples).median
    bandwidth = copy[0].bytes / summary(copy[0].samples).median
    reach = sorted(row.flops / row.bytes for row in points)
    x = [reach[0] / 2, peak / bandwidth, max(reach[-1] * 2, 2 * peak / bandwidth)]
    axes.plot(x, [min(peak, bandwidth * each) for each in x], color="black")
    axes.annotate(f"{peak / 1e9:.0f} GFLOP/s, float32", (x[-1], peak), ha="right", va="bottom")
    axes.annotate(f"{bandwidth / 1e9:.0f} GB/s", (x[0], bandwidth * x[0]), rotation=35, va="bottom")
    for peer in dict.fromkeys(row.peer for row in points):
        variants = dict.fromkeys((row.case, row.variant) for row in find(points, peer=peer))
        best = [fastest(find(points, case=case, variant=variant), peer) for case, variant in variants]
        mine = [row for row in best if row is not None]
        where = [row.flops / row.bytes for row in mine]
        rates = [row.flops / summary(row.samples).median for row in mine]
        style = {"marker": "o", "s": 50, "zorder": 3} if peer == OURS else {"marker": ".", "s": 30}
        axes.scatter(where, rates, label=peer, color=_color(peer), **style)
    axes.set(xscale="log", yscale="log", xlabel="operations a byte, at the least", ylabel="operations a second")
    axes.set_title("What is reached of this machine's limits; in cache a point may lie above the slope")
    axes.legend(fontsize="small")
    return True


def ratios(rows: Sequence[Row], axes: Any) -> bool:
    """The fastest form of each peer as a multiple of our fastest form, with intervals of 95 %."""
    titles = [row for row in find(rows, peer=OURS) if row.samples]
    variants = list(dict.fromkeys((row.case, row.variant) for row in titles))
    names = [name for name in dict.fromkeys(row.peer for row in rows) if name not in (OURS, AGAIN, LIMIT)]
    if not variants or not names:
        return False
    for i, name in enumerate(names):
        at, values, below, above = [], [], [], []
        for j, (case, variant) in enumerate(variants):
            these = find(rows, case=case, variant=variant)
            ours, theirs = fastest(these, OURS), fastest(these, name)
            if ours is None or theirs is None:
                continue
            by = ratio(theirs.samples, ours.samples)
            at.append(j + 0.6 * ((i + 0.5) / len(names) - 0.5))
            values.append(by.value)
            below.append(by.value - by.low)
            above.append(by.high - by.value)
        if at:
            axes.errorbar(values, at, xerr=[below, above], fmt="o", markersize=4, label=name, color=_color(name))
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", xlabel="time, as a multiple of ours; left of 1 the peer is faster")
    _plain(axes.xaxis)
    axes.set_yticks(range(len(variants)), [f"{case}: {variant}" for case, variant in variants], fontsize="x-small")
    axes.set_ylim(len(variants) - 0.5, -0.5)  # the first one on top
    axes.grid(axis="y", color="0.92")
    axes.figure.set_size_inches(11, 2 + 0.3 * len(variants))
    axes.figure.legend(loc="outside right upper", fontsize="small")
    return True


def ensemble(rows: Sequence[Row], axes: Any) -> bool:
    """Time of a member's step against the number of members, with shared data."""
    shared = [row for row in find(rows, case="ensemble") if "shared" in row.variant and row.peer != AGAIN]
    return _lines(shared, axes, lambda row: summary(row.samples).median * 1e6, "members", "µs a step and member")


def depth(rows: Sequence[Row], axes: Any) -> bool:
    """Seconds of compiling against the number of blocks."""
    staged = [row for row in find(rows, case="depth") if "compile" in row.stages and row.peer != AGAIN]
    return _lines(staged, axes, lambda row: sum(row.stages.get(s, 0) for s in STAGES), "blocks", "s until compiled")


def _color(peer: str) -> Any:
    import matplotlib as mpl

    return "black" if peer == OURS else mpl.colormaps["tab20"](PEERS.index(peer)) if peer in PEERS else "gray"


def _lines(rows: Sequence[Row], axes: Any, y: Callable[[Row], float], x_label: str, y_label: str) -> bool:
    """A line for each peer, in its colour, and form, over the first number in the variants' names, if there are two."""
    measured = [row for row in rows if row.samples]
    if len({row.variant for row in measured}) < 2:
        return False
    for peer in dict.fromkeys(row.peer for row in measured):
        of_peer = find(measured, peer=peer)
        for form, style in zip(dict.fromkeys(row.form for row in of_peer), cycle(STYLES)):
            points = sorted((int(re.findall(r"\d+", row.variant)[0]), y(row)) for row in find(of_peer, form=form))
            axes.plot(*zip(*points, strict=True), style, color=_color(peer), label=f"{peer}, {form}")
    axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
    _plain(axes.xaxis)
    _plain(axes.yaxis)
    axes.legend(fontsize="small")
    return True


def _plain(axis: Any) -> None:
    """Numbers of a logarithmic axis without powers, so that few decades have enough of them."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
