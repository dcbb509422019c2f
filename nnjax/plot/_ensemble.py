"""Plot the gain from ensemble size, the members' scores, and the usefulness of an ensemble's uncertainty."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from nnjax.plot._style import (
    HELD_OUT,
    NEUTRAL,
    TRAIN,
    legend,
    new_figure,
    plain,
    share_axis,
    style,
    wilson_interval,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nnjax.uncertainty import SizeCurve

LEAST_FOR_BARS = 10  # smallest number of members for a histogram


def ensemble_size(table: SizeCurve, *, context: str = "") -> Figure:
    """Plot accuracy and NLL against the number of members, compared with a single member.

    Args:
      table: Result of `uncertainty.ensemble_size_curve`.
      context: The second line of the title: data, settings and score.
    """
    size = np.asarray(table.size)
    figure = new_figure(4.8, "Ensemble size: the gain from more members", context)
    panels = ((table.accuracy, table.accuracy_sd, "accuracy"), (table.nll, table.nll_sd, "negative log-likelihood"))
    for axes, (means, deviations, name) in zip(figure.subplots(2, 1, sharex=True), panels, strict=True):
        mean, sd = np.asarray(means, float), np.asarray(deviations, float)
        single = mean[size == 1]
        if single.size:
            axes.axhline(float(single[0]), color=NEUTRAL, linestyle="--", label="one member")
        low, high = mean - sd, mean + sd
        if name == "accuracy":
            low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
        axes.fill_between(size, low, high, color=TRAIN, alpha=0.2, linewidth=0, label="± sd")
        axes.plot(size, mean, color=TRAIN, marker="o", markersize=4, clip_on=False, label="mean over subsets")
        axes.set_xscale("log", base=2)
        axes.set_xticks(size, [str(n) for n in size])
        axes.minorticks_off()
        axes.set(ylabel=name)
        style(axes)
        if name == "accuracy":
            share_axis(axes, np.concatenate([low, high]))
            legend(axes, columns=3)
    axes.set(xlabel="members")
    return figure


def rejection(dropped: np.ndarray, accuracy: np.ndarray, *, context: str = "") -> Figure:
    """Plot the accuracy of the remaining inputs against the share of inputs rejected, the most uncertain first.

    The band is the 95 % interval of the accuracy, given the number of remaining inputs.

    Args:
      dropped: Rejected shares, from `uncertainty.rejection_curve`.
      accuracy: Accuracy of the remaining inputs, of the same shape.
      context: The second line of the title: data, settings and score.
    """
    dropped, accuracy = np.asarray(dropped, float), np.asarray(accuracy, float)
    figure = new_figure(3.2, "Rejection: accuracy if the most uncertain rows are left to a person", context)
    axes = figure.subplots()
    low, high = wilson_interval(accuracy, len(accuracy) * (1 - dropped))
    axes.fill_between(dropped, low, high, color=TRAIN, alpha=0.15, linewidth=0, label="95 % interval")
    axes.axhline(float(accuracy[0]), color=NEUTRAL, linestyle="--", label="rejected at random")
    axes.plot(dropped, accuracy, color=TRAIN, label="most uncertain first", clip_on=False)
    axes.set(xlabel="share rejected", ylabel="accuracy of the others", xlim=(0, 1))
    share_axis(axes, np.concatenate([accuracy, low[: max(1, len(low) * 9 // 10)]]))
    style(axes)
    legend(axes, columns=3)
    return figure


def spread(scores: np.ndarray, averaged: float, name: str = "accuracy", *, context: str = "") -> Figure:
    """Plot the members' scores (a histogram if there are 10 or more), their mean, and the averaged prediction's score.

    Args:
      scores: Score of each member, of shape (members,).
      averaged: Score of the averaged prediction.
      name: Name of the score.
      context: The second line of the title: data, settings and score.
    """
    from matplotlib.ticker import MaxNLocator

    scores = np.asarray(scores, float)
    finite = scores[np.isfinite(scores)]
    few = len(finite) < LEAST_FOR_BARS
    headline = "Members: their scores, and that of their average"
    figure = new_figure(1.5 if few else 2.8, headline, context)
    axes = figure.subplots()
    if few:
        axes.plot(finite, np.zeros_like(finite), "o", color=TRAIN, alpha=0.6, label="members", clip_on=False)
        axes.set_yticks([])
    else:
        middle, half = (finite.max() + finite.min()) / 2, max(float(np.ptp(finite)) / 2, 1e-3)  # half is never 0
        bins = min(30, math.ceil(2 * math.sqrt(finite.size)))
        axes.hist(finite, bins=bins, range=(middle - half, middle + half), color=TRAIN, alpha=0.4, label="members")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set(ylabel="members")
    mean = float(scores.mean())
    axes.axvline(mean, color=TRAIN, linestyle="--", label=f"their mean, {mean:.4f}")
    axes.axvline(averaged, color=HELD_OUT, label=f"averaged prediction, {averaged:.4f}")
    if "accuracy" in name:
        share_axis(axes, np.array([*finite, averaged]), "x")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set(xlabel=plain(name))
    style(axes)
    legend(axes, columns=3)
    return figure
