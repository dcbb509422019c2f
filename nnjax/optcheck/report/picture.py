"""Draw the updates of both optimizers and their difference."""

import textwrap
from typing import Any

import numpy as np

from nnjax.optcheck.trace.gradient_script import MAGNITUDES, PATTERNS, gradient_script
from nnjax.optcheck.trace.traces import Trace

CURVES = (1e-12, 1e-8, 1e-4, 1.0)  # gradient magnitudes for which a curve is drawn
COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44")  # Paul Tol's palette, distinguishable by the colour-blind
WIDTH, HEIGHT = 10.0, 4.4  # inches
FLOOR = 1e-17  # lower bound of relative differences, so that the logarithm is finite


def draw(candidate: Trace, reference: Trace, *, headline: str = "", context: str = "") -> Any:
    """Return a figure of the updates of both optimizers over the steps, and of their relative difference.

    Args:
      candidate: the updates of the candidate.
      reference: the updates of the reference.
      headline: the verdict, for the title.
      context: the causes of the difference, for the second line of the title.
    """
    from matplotlib.figure import Figure

    a, b = candidate.updates, reference.updates
    script = gradient_script()  # all scripts have the same patterns and magnitudes
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.abs(a - b) / np.maximum(np.abs(a), np.abs(b))
    relative = np.where(a == b, 0.0, np.nan_to_num(relative, nan=1.0))
    steps = np.arange(1, len(a) + 1)

    bold, small = (textwrap.wrap(text.replace("$", r"\$"), most) for text, most in ((headline, 100), (context, 170)))
    title = 0.15 + 0.19 * len(bold) + 0.155 * len(small)
    total = HEIGHT + title
    figure = Figure(figsize=(WIDTH, total), layout="constrained")
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0, 0, 1, HEIGHT / total))
    figure.text(0.01, 1 - 0.08 / total, "\n".join(bold), va="top", fontsize=10.5, fontweight="bold", color="#222222")
    below = 1 - (0.08 + 0.2 * len(bold)) / total
    figure.text(0.01, below, "\n".join(small), va="top", fontsize=7.5, color="#666666")
    left, right = figure.subplots(1, 2)
    random = script.pattern == list(PATTERNS).index("random")
    for number, size in enumerate(CURVES):
        element = int(np.flatnonzero(random & np.isclose(script.magnitude, size, atol=0))[0])
        ours, theirs = a[:, element], b[:, element]
        left.plot(steps, np.abs(theirs), color=COLORS[number], label=f"gradients of {size:.0e}")
        same = np.sign(ours) == np.sign(theirs)
        left.plot(steps[same], np.abs(ours[same]), "x", color=COLORS[number], markersize=5)
        left.plot(steps[~same], np.abs(ours[~same]), "o", color=COLORS[number], markersize=5, fillstyle="none")
    left.set(xlabel="step", ylabel="size of the update", yscale="log")
    left.set_title("lines: reference; ×: candidate, ○: with the opposite sign", loc="left", fontsize=8, pad=34)
    left.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    left.spines[["top", "right"]].set_visible(False)
    left.grid(color="#e6e6e6", linewidth=0.6)

    largest = np.stack([relative[:, script.magnitude == size].max(axis=1) for size in MAGNITUDES])
    image = right.imshow(np.log10(np.maximum(largest, FLOOR)), aspect="auto", origin="lower", vmin=-16, vmax=0)
    right.set_yticks(range(0, len(MAGNITUDES), 3), [f"{size:.0e}" for size in MAGNITUDES[::3]])
    right.set_xticks(range(3, len(a), 4), [str(k + 1) for k in range(3, len(a), 4)])
    right.set(xlabel="step", ylabel="gradient magnitude")
    right.set_title("largest relative difference", loc="left", fontsize=8)
    bar = figure.colorbar(image, ax=right)
    bar.set_label("log₁₀ of the difference", fontsize=9)
    for axes in (left, right, bar.ax):
        axes.tick_params(labelsize=8, which="both")
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)
    return figure
