"""The picture of a report."""

from typing import Any

import numpy as np

from nnjax.optcheck.trace.gradient_script import MAGNITUDES, PATTERNS, script
from nnjax.optcheck.trace.traces import Trace

SHOWN = (1e-12, 1e-8, 1e-4, 1.0)  # magnitudes drawn over the steps
FLOOR = 1e-17  # of relative differences, so that none is not at minus infinity


def draw(candidate: Trace, reference: Trace) -> Any:
    """Both updates over the steps, and their relative difference over steps and magnitudes, as a figure.

    Args:
      candidate: what it did.
      reference: what it did.
    """
    from matplotlib.figure import Figure

    one, other = candidate.updates, reference.updates
    given = script()  # patterns and magnitudes are those of any script
    magnitude, pattern = np.concatenate(given.magnitude), np.concatenate(given.pattern)
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.abs(one - other) / np.maximum(np.abs(one), np.abs(other))
    off = np.where(one == other, 0.0, np.nan_to_num(off, nan=1.0))
    steps = np.arange(1, len(one) + 1)

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    random = pattern == list(PATTERNS).index("random")
    for number, size in enumerate(SHOWN):
        element = int(np.flatnonzero(random & np.isclose(magnitude, size, atol=0))[0])
        left.plot(steps, np.abs(other[:, element]), f"C{number}-", label=f"gradients of {size:.0e}")
        same = np.sign(one[:, element]) == np.sign(other[:, element])
        left.plot(steps[same], np.abs(one[same, element]), f"C{number}x")
        left.plot(steps[~same], np.abs(one[~same, element]), f"C{number}o", fillstyle="none")
    left.set(
        xlabel="step",
        ylabel="size of the update",
        yscale="log",
        title="reference: lines; candidate: ×, ○ the other sign",
    )
    left.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)

    table = np.array([[off[k, magnitude == size].max() for k in range(len(one))] for size in MAGNITUDES])
    shown = right.imshow(np.log10(np.maximum(table, FLOOR)), aspect="auto", origin="lower", vmin=-16, vmax=0)
    right.set_yticks(range(0, len(MAGNITUDES), 3), [f"{size:.0e}" for size in MAGNITUDES[::3]])
    right.set_xticks(range(3, len(one), 4), [str(k + 1) for k in range(3, len(one), 4)])
    right.set(xlabel="step", ylabel="size of the gradients", title="largest relative difference")
    figure.colorbar(shown, ax=right, label="log₁₀ of it")
    return figure
