"""Plot how far the losses and weights of a repeated run deviate from the first run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from nnjax.plot._style import HELD_OUT, TRAIN, legend, new_figure, shorten, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LEAVES = 12
FLOOR = 1e-9  # smallest relative difference that is drawn; different float32 numbers differ by more


def repetition(
    first: np.ndarray, repeated: np.ndarray, weights: Mapping[str, float], *, tolerance: float = 1e-3, context: str = ""
) -> Figure:
    """Plot how far a repeated run deviates: relative differences of losses, absolute differences of weights.

    Args:
      first: Losses of the run (steps,), or (members, steps).
      repeated: Losses of the repetition, of the same shape.
      weights: Largest absolute difference for each weight array that differs, or NaN if the two cannot be compared;
        empty if all are equal.
      tolerance: Largest relative difference of a loss that rounding can explain.
      context: The second line of the title: data, settings and score.

    Raises:
      ValueError: if the shapes differ.

    >>> figure = plot.repetition(np.array([2.0, 1.0]), np.array([2.0, 1.001]), {"params/1/w": 1e-5})
    >>> figure.axes[0].get_xlabel()
    'step'
    """
    first, repeated = np.atleast_2d(np.asarray(first, float)), np.atleast_2d(np.asarray(repeated, float))
    if first.shape != repeated.shape:
        raise ValueError(f"repetition: losses must have equal shapes, got {first.shape} and {repeated.shape}")
    same = not weights and np.array_equal(first, repeated, equal_nan=True)
    headline = f"Repetition: {'equal, bit for bit' if same else 'how far it is from the first run'}"
    shown = sorted(weights, key=lambda name: -np.nan_to_num(weights[name], nan=np.inf))[:MOST_LEAVES][::-1]
    figure = new_figure(2.7 + (0.6 + 0.22 * len(shown) if shown else 0), headline, context)
    ratios = (2.4, 0.4 + 0.22 * len(shown)) if shown else (1,)
    panels = figure.subplots(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.abs(repeated - first) / np.abs(first)
    relative = np.where(repeated == first, 0, relative)
    for member in relative:
        steps = np.arange(len(member))
        panels[0].plot(steps, np.maximum(member, FLOOR), color=TRAIN, marker=".", linewidth=1, label="_")
    panels[0].plot([], [], color=TRAIN, marker=".", label=f"loss (equal: {FLOOR:g})")
    panels[0].axhline(tolerance, color=HELD_OUT, linestyle="--", label=f"tolerance, {tolerance:g}")
    panels[0].set(xlabel="step", ylabel="relative difference", yscale="log")
    panels[0].set_ylim(FLOOR / 3, max(10 * tolerance, 3 * float(np.nanmax(relative, initial=FLOOR))))
    style(panels[0])
    legend(panels[0], columns=2)
    if shown:
        place = np.arange(len(shown))
        sizes = np.array([weights[name] for name in shown], float)
        known = np.isfinite(sizes)
        panels[1].barh(place[known], sizes[known], color=TRAIN, alpha=0.55, height=0.7)
        for i in place[~known]:
            panels[1].text(
                0.02, i, "not comparable", va="center", fontsize=8, transform=panels[1].get_yaxis_transform()
            )
        panels[1].set_yticks(place, [shorten(name, 26) for name in shown])
        panels[1].set(xlabel="largest absolute difference", xscale="log", ylim=(-0.6, len(shown) - 0.4))
        style(panels[1])
    return figure
