"""Plot a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnjax import _targets
from nnjax.plot._style import SMALL, WIDTH, label_bar, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_COUNTS = 25  # largest number of classes for which the cells show counts; with more, they would be unreadable
MOST_NAMES = 50  # largest number of names on an axis
LONGEST = 18  # largest number of characters of a name


def confusion(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str], *, context: str = "") -> Figure:
    """Plot the confusion matrix: counts by true and predicted class, coloured by their share of the true class.

    Args:
      logits: Logits of shape (examples, classes).
      labels: Integer labels of shape (examples,).
      classes: Names of the classes.
      context: The second line of the title: data, settings and score.

    Raises:
      ValueError, TypeError: if the logits do not match the labels or the classes.

    >>> figure = plot.confusion(np.eye(3, dtype=np.float32), np.array([0, 1, 1]), ["a", "b", "c"])
    >>> figure.axes[0].get_xlabel()
    'predicted'
    """
    n = len(classes)
    _targets.logits_and_target("confusion", logits, labels)
    if np.shape(logits)[-1] != n:
        raise ValueError(f"confusion: logits must be (examples, {n}) for {n} classes, got {np.shape(logits)}")
    if not ((np.asarray(labels) >= 0) & (np.asarray(labels) < n)).all():
        raise ValueError(f"confusion: labels must be 0 … {n - 1}, got {np.min(labels)} … {np.max(labels)}")
    counts = np.zeros((n, n), int)
    np.add.at(counts, (np.asarray(labels), np.asarray(logits).argmax(-1)), 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [shorten(name, LONGEST) for name in classes]
    longest = max(map(len, names))
    width = min(12.0, max(WIDTH, 0.38 * n + 0.075 * longest + 1.2))
    turn, side = (45, "right") if longest > 3 else (0, "center")
    names_room = 0.06 * longest  # inches on the left; rotated names below need 0.7 times as much
    height = max(2.0, width - 1.35 - names_room) + 0.65 + (0.7 * names_room if turn else 0)
    figure = new_figure(height, "Confusion matrix: which class is mistaken for which", context, width=width)
    axes = figure.subplots()
    # The square root makes a few mistakes visible next to a hundred correct predictions
    image = axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)
    shown = range(0, n, -(-n // MOST_NAMES))
    shown_names = [names[i] for i in shown]
    axes.set_xticks(shown, shown_names, rotation=turn, ha=side, rotation_mode="anchor", fontsize=SMALL)
    axes.set_yticks(shown, shown_names, fontsize=SMALL)
    axes.set(xlabel="predicted", ylabel="true")
    if n <= MOST_COUNTS:
        size = 8 if counts.max() < 1000 else 7 if counts.max() < 10_000 else 5.5
        for i, j in np.argwhere(counts):
            color = "white" if share[i, j] > 0.4 else "black"
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=color, fontsize=size)
    bar = figure.colorbar(image, shrink=0.8)
    bar.set_ticks(np.sqrt([0, 0.05, 0.2, 0.5, 1]).tolist(), labels=["0", ".05", ".2", ".5", "1"])
    label_bar(bar, "share of the true class")
    return figure
