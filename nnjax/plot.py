"""Plots of a run. Each function returns a matplotlib figure and changes no global state of matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import losses, metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nnjax.uncertainty import SizeCurve

TRAIN, HELD_OUT, NEUTRAL = "#4477aa", "#ee6677", "#bbbbbb"  # Paul Tol's palette, distinguishable by the colour-blind


def curves(history: Sequence[dict[str, float]]) -> Figure:
    """Plot the loss over epochs, and next to it the validation score if there is one.

    Args:
      history: The history in the result of `train.fit`.
    """
    names = dict.fromkeys(name for record in history for name in record)
    score = next((name for name in ("validation_accuracy", "validation_r2") if name in names), None)
    figure = _figure(4.5 * (2 if score else 1), 3.2)
    axes = figure.subplots(1, 2 if score else 1, squeeze=False)[0]
    _line(axes[0], history, "loss", "training, mean of the epoch", TRAIN)
    _line(axes[0], history, "validation_loss", "validation", HELD_OUT)
    # Losses that span more than a factor of 20 are unreadable on a linear axis
    values = [r[k] for r in history for k in ("loss", "validation_loss") if r.get(k, np.nan) > 0]
    if values and max(values) > 20 * min(values):
        axes[0].set_yscale("log")
    axes[0].set(xlabel="epoch", ylabel="loss per example")
    axes[0].legend(frameon=False)
    if score:
        _line(axes[1], history, score, "validation", HELD_OUT)
        axes[1].set(xlabel="epoch", ylabel=score.removeprefix("validation_").replace("r2", "R²"))
        known = [record for record in history if np.isfinite(record.get(score, np.nan))]
        if known:
            best = max(known, key=lambda record: record[score])
            axes[1].set_title(f"best {best[score]:.4f} in epoch {best['epoch']:g}", fontsize=9)
    return figure


def confusion(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Figure:
    """Plot the confusion matrix: counts of true class by predicted class, coloured by the share of the true class.

    Args:
      logits: Logits of shape (examples, classes).
      labels: Integer labels of shape (examples,).
      classes: Names of the classes.

    Raises:
      ValueError, TypeError: if the labels do not match the logits, or the logits the classes.
    """
    n = len(classes)
    losses.logits_and_target("confusion", logits, labels)
    if np.shape(logits)[-1] != n:
        raise ValueError(f"confusion: logits must be (examples, {n}) for {n} classes, got {np.shape(logits)}")
    if not ((np.asarray(labels) >= 0) & (np.asarray(labels) < n)).all():
        raise ValueError(f"confusion: labels must be 0 … {n - 1}, got {np.min(labels)} … {np.max(labels)}")
    counts = np.zeros((n, n), int)
    np.add.at(counts, (np.asarray(labels), np.asarray(logits).argmax(-1)), 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    inches = min(12.0, max(4.0, 0.5 * n + 1.5))
    figure = _figure(inches + 0.7, inches)
    axes = figure.subplots()
    # The square root makes a few errors visible next to a hundred hits
    image = axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)
    names = [_plain(name) for name in classes]
    long = max(map(len, classes)) > 3
    turn, side = (45, "right") if long else (0, "center")
    axes.set_xticks(range(n), names, rotation=turn, ha=side, rotation_mode="anchor")
    axes.set_yticks(range(n), names)
    axes.set(xlabel="predicted", ylabel="true")
    if n <= 25:
        for i, j in np.argwhere(counts):
            color = "white" if share[i, j] > 0.4 else "black"
            axes.text(j, i, counts[i, j], ha="center", va="center", color=color, fontsize=8)
    bar = figure.colorbar(image, shrink=0.8, label="share of the true class")
    bar.set_ticks(np.sqrt([0, 0.05, 0.2, 0.5, 1]).tolist(), labels=["0", ".05", ".2", ".5", "1"])
    return figure


def reliability(logits: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> Figure:
    """Plot accuracy against confidence; a calibrated network lies on the diagonal.

    Args:
      logits: Logits of shape (examples, classes).
      labels: Integer labels of shape (examples,).
      bins: Number of confidence bins.
    """
    # jit compiles once; without it each of the twenty operations is compiled separately
    diagram = jax.jit(partial(metrics.reliability, bins=bins))(jnp.asarray(logits), jnp.asarray(labels))
    share, confidence, correct = map(np.asarray, diagram)
    filled = share > 0
    error = float((share * np.abs(correct - confidence)).sum())
    figure = _figure(4.5, 4.8)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=NEUTRAL, linestyle="--", label="perfectly calibrated")
    label = f"test data, ECE {error:.4f}"
    above.plot(confidence[filled], correct[filled], "o-", color=TRAIN, label=label, clip_on=False)
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    above.legend(frameon=False, loc="upper left")
    centres = (np.arange(bins) + 0.5) / bins
    below.bar(centres, share * len(labels), width=0.9 / bins, color=TRAIN)
    below.set_yscale("symlog", linthresh=1)
    below.set(xlabel="confidence", ylabel="examples")
    return figure


def predictions(prediction: np.ndarray, target: np.ndarray, name: str) -> Figure:
    """Plot the predictions of a regression against the targets.

    Args:
      prediction: Predictions of shape (examples,), in units of the target.
      target: Targets of shape (examples,).
      name: Name of the target.
    """
    figure = _figure(4.5, 4.5)
    axes = figure.subplots()
    ends = [min(target.min(), prediction.min()), max(target.max(), prediction.max())]
    axes.plot(ends, ends, color=NEUTRAL, linestyle="--")
    axes.plot(target, prediction, "o", color=TRAIN, markersize=3, alpha=0.6)
    axes.set(xlabel=f"{_plain(name)}, true", ylabel=f"{_plain(name)}, predicted")
    axes.set_aspect("equal", adjustable="datalim")
    return figure


def ensemble_size(table: SizeCurve) -> Figure:
    """Plot accuracy and NLL against the number of members, compared with a single member.

    Args:
      table: Result of `uncertainty.ensemble_size_curve`.
    """
    size = np.asarray(table.size)
    figure = _figure(9, 3.2)
    panels = ((table.accuracy, table.accuracy_sd, "accuracy"), (table.nll, table.nll_sd, "negative log-likelihood"))
    for axes, (mean, sd, name) in zip(figure.subplots(1, 2), panels, strict=True):
        single = np.asarray(mean)[size == 1]
        if single.size:
            axes.axhline(float(single[0]), color=NEUTRAL, linestyle="--", label="one member, mean")
        axes.errorbar(size, mean, sd, color=TRAIN, marker="o", capsize=3, label="mean ± sd over subsets")
        axes.set_xscale("log", base=2)
        axes.set_xticks(size, [str(n) for n in size])
        axes.minorticks_off()
        axes.set(xlabel="members", ylabel=name)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def rejection(dropped: np.ndarray, accuracy: np.ndarray) -> Figure:
    """Plot the accuracy of the remaining inputs against the rejected share of the most uncertain ones.

    Args:
      dropped: Rejected shares, from `uncertainty.rejection_curve`.
      accuracy: Accuracy of the remaining inputs, of the same shape.
    """
    figure = _figure(4.5, 3.2)
    axes = figure.subplots()
    accuracy = np.asarray(accuracy)
    axes.axhline(float(accuracy[0]), color=NEUTRAL, linestyle="--", label="dropped at random")
    axes.plot(dropped, accuracy, color=TRAIN, label="most uncertain first")
    axes.set(xlabel="share dropped", ylabel="accuracy of the rest", xlim=(0, 1))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def spread(scores: np.ndarray, averaged: float, name: str = "accuracy") -> Figure:
    """Plot the members' scores, their mean, and the score of the averaged prediction.

    Args:
      scores: Score of each member, of shape (members,).
      averaged: Score of the averaged prediction.
      name: Name of the score.
    """
    from matplotlib.ticker import MaxNLocator

    scores = np.asarray(scores)
    finite = scores[np.isfinite(scores)]
    figure = _figure(4.5, 3.2)
    axes = figure.subplots()
    if finite.size:
        middle, half = (finite.max() + finite.min()) / 2, max(float(np.ptp(finite)) / 2, 1e-3)  # not 0
        bins = min(30, math.ceil(2 * math.sqrt(finite.size)))
        axes.hist(finite, bins=bins, range=(middle - half, middle + half), color=TRAIN, alpha=0.4)
    # Ticks show each member, because the bars of a small ensemble say little
    height = np.full_like(finite, 0.03)
    axes.plot(finite, height, "|", color=TRAIN, markersize=9, transform=axes.get_xaxis_transform(), label="members")
    mean = float(scores.mean())
    axes.axvline(mean, color=TRAIN, linestyle="--", label=f"their mean, {mean:.4f}")
    axes.axvline(averaged, color=HELD_OUT, label=f"averaged prediction, {averaged:.4f}")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set(xlabel=_plain(name), ylabel="members")
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def sweep(
    table: Sequence[Mapping[str, float]], names: Sequence[str], log: Sequence[str] = (), score: str = "validation_loss"
) -> Figure:
    """Plot the score of each setting: as a line over one hyper-parameter, or as colours over two.

    A star marks the best setting and crosses mark diverged ones. If several settings share the same two values, the
    best is drawn on top.

    Args:
      table: The table in the result of `train.sweep`, one row per setting.
      names: One or two hyper-parameters.
      log: The hyper-parameters to draw on a logarithmic axis.
      score: Name of the score; lower is better.

    Raises:
      ValueError: if there are not one or two names.
    """
    if len(names) not in (1, 2):
        raise ValueError(f"sweep: names must be one or two hyper-parameters, got {list(names)}")
    value = np.array([row[score] for row in table], float)
    good = np.isfinite(value) & (np.array([row.get("diverged", 0) for row in table]) == 0)
    x, y = (np.array([row[name] for row in table], float) for name in (names[0], names[-1]))
    figure = _figure(4.8 if len(names) == 1 else 5.6, 3.8)
    axes = figure.subplots()
    label = score.replace("_", " ")
    if len(names) == 1:
        _sweep_line(axes, x, value, good, np.array([row.get(f"{score}_sd", np.nan) for row in table], float))
        axes.set(ylabel=label)
    else:
        _sweep_colours(axes, (x, y), value, good, label)
        axes.set(ylabel=names[1].replace("_", " "))
    axes.set(xlabel=names[0].replace("_", " "))
    if names[0] in log:
        axes.set_xscale("log")
    if len(names) == 2 and names[1] in log:
        axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def png(figure: Figure) -> bytes:
    """Return the figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _figure(width: float, height: float) -> Figure:
    """Return a new figure, which is not in pyplot's global list."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("nnjax.plot needs matplotlib: pip install 'nnjax[cli]'") from error

    return Figure(figsize=(width, height), layout="constrained")


def _sweep_line(axes: Axes, x: np.ndarray, value: np.ndarray, good: np.ndarray, sd: np.ndarray) -> None:
    order = np.argsort(x, kind="stable")
    order = order[good[order]]
    bars = sd[order] if np.isfinite(sd[order]).any() else None
    axes.errorbar(x[order], value[order], bars, color=TRAIN, marker="o", capsize=3)
    if good.any():
        best = np.flatnonzero(good)[value[good].argmin()]
        axes.plot(x[best], value[best], "*", color=HELD_OUT, markersize=13, label=f"best, {value[best]:.4g}")
        if value[good].max() > 20 * value[good].min() > 0:
            axes.set_yscale("log")
    if not good.all():
        height, transform = np.full((~good).sum(), 0.97), axes.get_xaxis_transform()
        axes.plot(x[~good], height, "x", color=HELD_OUT, transform=transform, label="diverged")
    axes.legend(frameon=False)


def _sweep_colours(
    axes: Axes, xy: tuple[np.ndarray, np.ndarray], value: np.ndarray, good: np.ndarray, label: str
) -> None:
    from matplotlib.colors import LogNorm, Normalize

    x, y = xy
    order = np.argsort(-np.where(good, value, np.inf), kind="stable")
    order = order[good[order]]
    if order.size:
        low, high = value[order].min(), value[order].max()
        scale = LogNorm(low, high) if high > 5 * low > 0 else Normalize(low, high)
        points = axes.scatter(x[order], y[order], 70, value[order], cmap="viridis_r", norm=scale, clip_on=False)
        axes.figure.colorbar(points, label=label)
        best = order[-1]
        axes.plot(x[best], y[best], "*", color=HELD_OUT, markersize=13, label=f"best, {value[best]:.4g}", clip_on=False)
    if not good.all():
        axes.plot(x[~good], y[~good], "x", color=HELD_OUT, label="diverged", clip_on=False)
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def _plain(text: str) -> str:
    """Escape dollar signs, which would start a formula."""
    return text.replace("$", r"\$")


def _line(axes: Axes, history: Sequence[dict[str, float]], name: str, label: str, color: str) -> None:
    points = [(record["epoch"], record[name]) for record in history if name in record]
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=color, label=label, marker="." if len(points) < 50 else None)
    axes.spines[["top", "right"]].set_visible(False)
