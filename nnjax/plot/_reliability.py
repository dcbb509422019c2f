"""Plot a reliability diagram, which compares confidence with accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nnjax.plot._style import NEUTRAL, TRAIN, legend, new_figure, style, wilson_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def reliability(logits: np.ndarray, labels: np.ndarray, *, bins: int = 15, context: str = "") -> Figure:
    """Plot accuracy against confidence, with 95 % intervals and the number of examples in each bin.

    The points of a calibrated network lie on the diagonal, up to the intervals. With fewer than about 200 examples, the
    intervals are so wide that the diagram says little.

    Args:
      logits: Logits of shape (examples, classes).
      labels: Integer labels of shape (examples,).
      bins: Number of confidence bins.
      context: The second line of the title: data, settings and score.

    >>> figure = plot.reliability(np.eye(3, dtype=np.float32), np.array([0, 1, 1]))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['accuracy', 'examples']
    """
    share, confidence, correct = _diagram(np.asarray(logits), np.asarray(labels), bins)
    filled = share > 0
    counts = np.rint(share * len(labels)).astype(int)
    error = float((share * np.abs(correct - confidence)).sum())
    figure = new_figure(4.6, "Reliability: accuracy at each level of confidence", context)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=NEUTRAL, linestyle="--", label="calibrated")
    x, y = confidence[filled], correct[filled]
    low, high = wilson_interval(y, counts[filled])
    above.errorbar(
        x, y, np.abs([y - low, high - y]), color=TRAIN, fmt="o", markersize=4.5, elinewidth=1, capsize=2,
        label=f"test rows, 95 % intervals; calibration error {error:.4f}", clip_on=False,
    )  # fmt: skip
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    centres = (np.arange(bins) + 0.5) / bins
    below.bar(centres, counts, width=0.9 / bins, color=TRAIN, alpha=0.6)
    for centre, count in zip(centres[filled], counts[filled], strict=True):
        below.annotate(f"{count}", (centre, count), (0, 1.5), textcoords="offset points", ha="center", fontsize=6.5)
    below.set_yscale("symlog", linthresh=1)
    below.set(xlabel="confidence (probability of the predicted class)", ylabel="examples")
    below.set_ylim(0, 4 * max(1, counts.max()))
    for axes in (above, below):
        style(axes)
    legend(above, columns=2)
    return figure


def _diagram(logits: np.ndarray, labels: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute `metrics.reliability` with NumPy; compiling it would take longer than drawing the plot."""
    powers = np.exp(logits - logits.max(-1, keepdims=True), dtype=np.float64)
    confidence = powers.max(-1) / powers.sum(-1)
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts, total, right = (
        np.bincount(places, values, minlength=bins) for values in (None, confidence, logits.argmax(-1) == labels)
    )
    filled = np.maximum(counts, 1)
    return counts / len(labels), total / filled, right / filled
