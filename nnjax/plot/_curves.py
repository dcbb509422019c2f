"""Plot learning curves: loss and score by epoch, for one network, an ensemble or folds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnjax.plot._style import HELD_OUT, TRAIN, legend, new_figure, share_axis, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCORES = {"validation_accuracy": "validation accuracy", "validation_r2": "validation R²"}
TRAINING = "mean over the epoch, while the weights changed"
LEAST_FOR_A_BAND = 5  # fewer members are drawn as lines only
MOST_LINES = 50  # largest number of members that are drawn as lines


def curves(
    history: Sequence[Mapping[str, Any]],
    *,
    best_epoch: float | Sequence[float] | np.ndarray | None = None,
    training: str = TRAINING,
    context: str = "",
) -> Figure:
    """Plot the loss by epoch and, below it, the validation score if there is one.

    The members of an ensemble, or the folds of a cross-validation, are drawn as lines (at most 50) with their median.
    For 5 members or more, a band reaches from the 10 % to the 90 % quantile.

    Args:
      history: The history in the result of `train.fit`: records of numbers, or of arrays (members,).
      best_epoch: Epoch whose network was kept, or one epoch per member; None means the last epoch.
      training: Description of the training loss for the legend. The loss is averaged while the weights change, and with
        dropout, so it is not comparable with the validation loss.
      context: The second line of the title: data, settings and score.

    >>> history = [{"epoch": 1, "loss": 0.9, "validation_loss": 0.8}, {"epoch": 2, "loss": 0.5, "validation_loss": 0.6}]
    >>> figure = plot.curves(history, context="digits, 64-32-10")
    >>> len(figure.axes)
    1
    """
    names = dict.fromkeys(name for record in history for name in record)
    score = next((name for name in SCORES if name in names), None)
    from matplotlib.ticker import MaxNLocator

    members = max((np.size(value) for record in history for value in record.values()), default=1)
    band = " and a band of 80 % of them" if members >= LEAST_FOR_A_BAND else ""
    headline = "Learning curves" + (f": the median of {members} networks{band}" if members > 1 else "")
    figure = new_figure(5.0 if score else 2.9, headline, context)
    panels = figure.subplots(2 if score else 1, 1, squeeze=False)[:, 0]
    label = "\n".join(textwrap.wrap(f"training: {training}", 58))
    loss = _draw(panels[0], history, "loss", members, label=label, color=TRAIN)
    validation = _draw(panels[0], history, "validation_loss", members)
    # Losses that span more than a factor of 20 are unreadable on a linear axis
    positive = np.concatenate([v[v > 0] for v in (loss, validation)])
    if positive.size and positive.max() > 20 * positive.min():
        panels[0].set_yscale("log")
    panels[0].set(ylabel="loss per example")
    if best_epoch is not None and np.size(best_epoch) == 1:
        panels[0].axvline(float(np.ravel(best_epoch)[0]), color=HELD_OUT, linestyle=":", linewidth=1.2)
    if score:
        values = _draw(panels[1], history, score, members)
        _mark_best(panels[1], history, score, best_epoch, members)
        panels[1].set(ylabel=SCORES[score])
        if score == "validation_accuracy":
            share_axis(panels[1], values)
        elif np.nanmin(values, initial=0) < -1 < np.nanmax(values, initial=-np.inf):  # R² may be very low at first
            panels[1].set_ylim(bottom=-1)
    for axes in panels:
        style(axes)
    legend(panels[0], columns=1 if len(label) > 36 else 2)
    if score:
        legend(panels[1], columns=2)
    panels[-1].set(xlabel=_clock(history))
    if _clock(history) == "epoch" and len(history) > 1:
        for axes in panels:
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return figure


def _clock(history: Sequence[Mapping[str, Any]]) -> str:
    return "epoch" if all("epoch" in record for record in history) else "step"


def _matrix(history: Sequence[Mapping[str, Any]], name: str, members: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the epochs (records,) at which a score was recorded, and its values (records, members), finite or NaN."""
    records = [record for record in history if name in record]
    x = np.array([float(np.max(record[_clock(history)])) for record in records])
    values = [np.broadcast_to(np.asarray(record[name], float), (members,)) for record in records]
    y = np.array(values).reshape(len(records), members)
    return x, np.where(np.isfinite(y), y, np.nan)


def _draw(
    axes: Axes,
    history: Sequence[Mapping[str, Any]],
    name: str,
    members: int,
    *,
    label: str = "validation",
    color: str = HELD_OUT,
) -> np.ndarray:
    """Draw one quantity from the history and return its finite values."""
    x, y = _matrix(history, name, members)
    known = np.isfinite(y).any(1)
    if not x.size:
        return np.zeros(0)
    marker = "." if len(x) < 50 else None
    width = 1.5 if len(x) < 100 else 0.9  # with many points, thick noisy lines hide each other
    if members == 1:
        axes.plot(x, y[:, 0], color=color, label=label, marker=marker, linewidth=width)
        return y[np.isfinite(y)]
    for member in range(min(members, MOST_LINES)):
        axes.plot(x, y[:, member], color=color, linewidth=0.6, alpha=0.35, label=f"_member {member}")
    x, y = x[known], y[known]
    if members >= LEAST_FOR_A_BAND and len(x):
        low, high = np.nanquantile(y, [0.1, 0.9], axis=1)
        axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    if len(x):
        axes.plot(x, np.nanmedian(y, axis=1), color=color, label=label, marker=marker, linewidth=width)
    return y[np.isfinite(y)]


def _mark_best(axes: Axes, history: Sequence[Mapping[str, Any]], score: str, best_epoch: Any, members: int) -> None:
    """Mark the score of the network that was kept, which without early stopping is the last one."""
    x, y = _matrix(history, score, members)
    epochs = np.full(members, x[-1]) if best_epoch is None else np.broadcast_to(np.ravel(best_epoch), (members,))
    rows = np.abs(x[:, None] - epochs).argmin(0)
    values = y[rows, np.arange(members)]
    if not np.isfinite(values).any():
        return
    if members > 1:
        label = f"kept networks, mean {np.nanmean(values):.4f}"
    else:
        label = f"kept: epoch {epochs[0]:g}, {values[0]:.4f}"
    axes.plot(
        x[rows], values, "o", color=HELD_OUT, markeredgecolor="white", markersize=7 if members == 1 else 4,
        clip_on=False, label=label, zorder=3,
    )  # fmt: skip
