"""Plot operations per second against operations per byte (roofline), with the limits from the calibration."""

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.harness.record import AGAIN, LIMIT, OURS, Row
from benchmarks.report.bottleneck import calibrated_rates
from benchmarks.report.drawing import COLORS, WIDTH, color_of, kind_of, set_titles, use_plain_numbers
from benchmarks.report.variants import fastest_row, median_time, peer_label, title_of

EXPLANATION = (
    "Each dot is the fastest form of a library for one variant; dots in a column do the same work.\n"
    "Programs whose data fit into a cache may be above the slope."
)


def draw_roofline(rows: Sequence[Row], machine: str) -> Any:
    """Return the figure of the roofline plot, or None if there is no calibration or no operation count."""
    import matplotlib.pyplot as plt

    rates = calibrated_rates(rows)
    points = [row for row in rows if row.flops and row.bytes and row.samples and row.peer not in (AGAIN, LIMIT)]
    points = [row for row in points if row.case != "calibrate"]
    if rates is None or not points:
        return None
    figure, axes = plt.subplots(figsize=(WIDTH, 5.6))
    figure.subplots_adjust(left=0.085, right=0.98, top=0.82, bottom=0.1)
    peak, bandwidth = rates.flops / 1e9, rates.bytes / 1e9  # operations and bytes per nanosecond
    intensities = sorted(row.flops / row.bytes for row in points)
    x = [intensities[0] / 2, peak / bandwidth, max(intensities[-1] * 2, 2 * peak / bandwidth)]
    axes.plot(x, [min(peak, bandwidth * value) for value in x], color="0.4", zorder=1)
    axes.annotate(f"large float32 products: {peak:.0f} GFLOP/s", (x[-1], peak), (0, 4), textcoords="offset points",
                  ha="right", va="bottom", color="0.3")  # fmt: skip
    labels_so_far: set[str] = set()
    for peer in sorted({row.peer for row in points}, key=lambda peer: peer == OURS):
        of_peer = [row for row in points if row.peer == peer]
        titles = dict.fromkeys(map(title_of, of_peer))
        best = [fastest_row([row for row in of_peer if title_of(row) == title], peer) for title in titles]
        fastest_rows = [row for row in best if row is not None]
        label = peer_label(kind_of(peer))
        axes.scatter(
            [row.flops / row.bytes for row in fastest_rows],
            [row.flops / median_time(row) / 1e9 for row in fastest_rows],
            s=34 if peer == OURS else 18,
            zorder=3 if peer == OURS else 2,
            linewidths=0,
            alpha=0.85,
            color=color_of(peer),
            label=None if label in labels_so_far else label,
        )
        labels_so_far.add(label)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte of unavoidable memory traffic")
    axes.set_ylabel("billion operations per second")
    use_plain_numbers(axes.xaxis, (1,))
    use_plain_numbers(axes.yaxis, (1,))
    along = [(x[1] / k, bandwidth * x[1] / k) for k in (4.5, 2)]  # two points on the slope
    (left, bottom), (right, top) = axes.transData.transform(along)
    angle = math.degrees(math.atan2(top - bottom, right - left))
    axes.annotate(f"memory: {bandwidth:.0f} GB/s", along[0], (-8, 4), textcoords="offset points", rotation=angle,
                  rotation_mode="anchor", color="0.3")  # fmt: skip
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    order = [peer_label(kind) for kind in COLORS]
    handles, labels = axes.get_legend_handles_labels()
    pairs = sorted(zip(labels, handles, strict=True), key=lambda pair: order.index(pair[0]))
    axes.legend([handle for _, handle in pairs], [label for label, _ in pairs], loc="lower right", frameon=False)
    set_titles(figure, "How close programs come to the limits of this machine", f"{EXPLANATION}\n{machine}")
    return figure
