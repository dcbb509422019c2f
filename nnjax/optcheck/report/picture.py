"""Draw the updates of both optimizers and their difference."""

from typing import Any

import numpy as np

from nnjax.optcheck.trace.gradient_script import MAGNITUDES, PATTERNS, gradient_script
from nnjax.optcheck.trace.traces import Trace

CURVES = (1e-12, 1e-8, 1e-4, 1.0)  # gradient magnitudes of the curves
FLOOR = 1e-17  # lower bound of relative differences, so that the logarithm is finite


def draw(candidate: Trace, reference: Trace) -> Any:
    """Return a figure of both updates over the steps, and of their relative difference over steps and magnitudes.

    Args:
      candidate: the updates of the candidate.
      reference: the updates of the reference.
    """
    from matplotlib.figure import Figure

    a, b = candidate.updates, reference.updates
    script = gradient_script()  # the patterns and magnitudes of all scripts are equal
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.abs(a - b) / np.maximum(np.abs(a), np.abs(b))
    relative = np.where(a == b, 0.0, np.nan_to_num(relative, nan=1.0))
    steps = np.arange(1, len(a) + 1)

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    random = script.pattern == list(PATTERNS).index("random")
    for number, size in enumerate(CURVES):
        element = int(np.flatnonzero(random & np.isclose(script.magnitude, size, atol=0))[0])
        ours, theirs = a[:, element], b[:, element]
        left.plot(steps, np.abs(theirs), f"C{number}-", label=f"gradients of {size:.0e}")
        same = np.sign(ours) == np.sign(theirs)
        left.plot(steps[same], np.abs(ours[same]), f"C{number}x")
        left.plot(steps[~same], np.abs(ours[~same]), f"C{number}o", fillstyle="none")
    left.set(
        xlabel="step",
        ylabel="size of the update",
        yscale="log",
        title="lines: reference; ×: candidate, ○: with the opposite sign",
    )
    left.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)

    largest = np.stack([relative[:, script.magnitude == size].max(axis=1) for size in MAGNITUDES])
    image = right.imshow(np.log10(np.maximum(largest, FLOOR)), aspect="auto", origin="lower", vmin=-16, vmax=0)
    right.set_yticks(range(0, len(MAGNITUDES), 3), [f"{size:.0e}" for size in MAGNITUDES[::3]])
    right.set_xticks(range(3, len(a), 4), [str(k + 1) for k in range(3, len(a), 4)])
    right.set(xlabel="step", ylabel="gradient magnitude", title="largest relative difference")
    figure.colorbar(image, ax=right, label="log₁₀ of the difference")
    return figure
