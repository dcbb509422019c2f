"""Detect training that ended too early, and overfitting."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnjax.cli.history import finite_mean

FEW = 5  # minimum number of validations that can show a trend
TAIL = 0.1  # fraction of the epochs at the end of the run in which the loss should no longer fall
FALLS = 0.03  # relative decrease in the tail above which the loss counts as falling
# overfitting: the loss is lowest in the first EARLY of the epochs, and then rises by more than the fraction RISES
EARLY, RISES = 0.5, 0.1


def describe_convergence(history: Sequence[Mapping[str, Any]], *, keeps_best: bool, rows: int | None = None) -> str:
    """Return a warning if the validation loss still falls at the end or rose after its minimum, or "" if neither.

    Args:
      history: records of `train.fit`; losses of an ensemble are averaged over its members.
      keeps_best: True if the network with the lowest validation loss is kept.
      rows: number of validation rows, because the loss of few rows also rises by chance; None means many.

    >>> from nnjax.cli.convergence import describe_convergence
    >>> falling = [{"epoch": e + 1.0, "validation_loss": 0.9**e} for e in range(10)]
    >>> describe_convergence(falling, keeps_best=False)
    'the validation loss was still falling, by 10 % in the last 1 of 10 epochs; train longer, as with --epochs 20'
    """
    points = [(r["epoch"], finite_mean(r["validation_loss"])) for r in history if "validation_loss" in r]
    epochs, losses = np.array([point for point in points if np.isfinite(point[1])]).reshape(-1, 2).T
    if len(losses) < FEW:
        return ""
    end, best = float(epochs[-1]), int(losses.argmin())
    tail = max(1, round(TAIL * len(losses)))
    before, after = np.median(losses[-2 * tail : -tail]), np.median(losses[-tail:])  # medians, because losses are noisy
    fall = 1 - after / before if before > 0 else 0.0
    if fall > FALLS and best >= len(losses) - 2 * tail:
        share = f"{fall:.0%}".replace("%", " %")
        return (
            f"the validation loss was still falling, by {share} in the last {end - epochs[-tail - 1]:g} of {end:g} "
            f"epochs; train longer, as with --epochs {2 * end:g}"
        )
    rise = after / losses[best] - 1 if losses[best] > 0 else 0.0
    by_chance = 0.0 if rows is None else (2 / rows) ** 0.5  # relative standard error of a mean of squared errors
    if rise > max(RISES, by_chance) and epochs[best] <= EARLY * end:
        share = f"{rise:.0%}".replace("%", " %")
        remedy = "that network is kept" if keeps_best else "--patience keeps the best network"
        return (
            f"the validation loss was lowest in epoch {epochs[best]:.4g} of {end:g} and rose by {share} after it: the "
            f"network overfits; {remedy}"
        )
    return ""
