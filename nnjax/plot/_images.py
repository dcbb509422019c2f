"""Draw images with their predictions: the least certain ones and the wrong ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnjax.plot._mosaic import mosaic
from nnjax.plot._style import FAINT, HELD_OUT, INK, WIDTH, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_MISTAKES = 60
UNCERTAIN = 12
CAPTION = 0.3  # height in inches of the two lines below an image


def uncertain(
    images: np.ndarray, logits: np.ndarray, labels: np.ndarray, classes: Sequence[str], *, context: str = ""
) -> Figure:
    """Draw up to twelve images, the least certain predictions first, with the true and the predicted class.

    Args:
      images: Images (examples, height, width), or (examples, height, width, 3) for colours.
      logits: Logits of shape (examples, classes).
      labels: Integer labels of shape (examples,).
      classes: Names of the classes.
      context: The second line of the title: data, settings and score.

    >>> images, labels = np.zeros((4, 8, 8)), np.array([0, 1, 1, 0])
    >>> figure = plot.uncertain(images, np.eye(4, 2), labels, ["a", "b"])
    """
    top = _probabilities(logits).max(1)
    rows = np.argsort(top, kind="stable")[:UNCERTAIN]
    headline = f"The {len(rows)} least certain test images"
    return _captioned(images, logits, labels, classes, rows=rows, headline=headline, context=context)


def mistakes(
    images: np.ndarray, logits: np.ndarray, labels: np.ndarray, classes: Sequence[str], *, context: str = ""
) -> Figure:
    """Draw up to 60 misclassified images, the most confident mistakes first.

    Args:
      images: Images (examples, height, width), or (examples, height, width, 3) for colours.
      logits: Logits of shape (examples, classes).
      labels: Integer labels of shape (examples,).
      classes: Names of the classes.
      context: The second line of the title: data, settings and score.

    >>> images, labels = np.zeros((4, 8, 8)), np.array([0, 1, 1, 0])
    >>> figure = plot.mistakes(images, np.eye(4, 2), labels, ["a", "b"])
    """
    probabilities = _probabilities(logits)
    wrong = np.flatnonzero(probabilities.argmax(1) != np.asarray(labels))
    rows = wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:MOST_MISTAKES]
    subject = f"All {len(wrong)}" if len(wrong) <= MOST_MISTAKES else f"The {len(rows)} most confident of {len(wrong)}"
    headline = f"{subject} wrong predictions among {len(probabilities)} test images"
    if len(wrong) < 2:
        subject = "The only wrong prediction" if len(wrong) else "No wrong predictions"
        headline = f"{subject} among {len(probabilities)} test images"
    return _captioned(images, logits, labels, classes, rows=rows, headline=headline, context=context)


def _captioned(
    images: np.ndarray,
    logits: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    rows: np.ndarray,
    headline: str,
    context: str,
) -> Figure:
    """Draw the images with the indices `rows`, each with its true class and prediction below it."""
    images, labels, probabilities = np.asarray(images, float), np.asarray(labels), _probabilities(logits)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    columns = 6 if max(map(len, classes)) <= 4 else 4 if len(rows) <= UNCERTAIN else 5
    if not len(rows):
        return new_figure(0.1, headline, context)
    height = images.shape[1] / images.shape[2] * WIDTH / columns
    tall = math.ceil(len(rows) / columns)
    inches = tall * (height + CAPTION) + 0.1
    figure = new_figure(inches, headline, f"{context}\N{NO-BREAK SPACE}· below: true class; prediction, probability")
    axes = figure.subplots()
    gap = max(1, round(images.shape[2] * 0.08))
    picture, left, bottom = mosaic(images[rows], columns, gap, below=CAPTION / height)
    axes.imshow(picture, cmap="gray", vmin=images[rows].min(), vmax=images[rows].max())
    most = 4 if columns == 6 else 11
    for row, x, y in zip(rows, left, bottom, strict=True):
        predicted, true = int(probabilities[row].argmax()), int(labels[row])
        share = probabilities[row, predicted]
        percent = "> 99 %" if share > 0.995 else f"{100 * share:.0f} %"
        color = INK if predicted == true else HELD_OUT
        lines = f"true {shorten(classes[true], most)}", f"{shorten(classes[predicted], most)}, {percent}"
        for i, (line, tint) in enumerate(zip(lines, (FAINT, color), strict=True)):
            place = y + i * 0.13 / height * images.shape[1]
            axes.text(x, place, line, va="top", fontsize=6.5, color=tint)
    axes.set_axis_off()
    return figure


def _probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of logits (examples, classes)."""
    logits = np.asarray(logits, float)
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)
