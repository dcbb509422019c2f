"""Read the trials of a search into arrays, and define the axes and colours that their plots share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nnjax.plot._style import HELD_OUT, NEUTRAL, SMALL, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 6  # up to this many distinct numbers are drawn at evenly spaced positions, like strings
GROUPS = 8  # largest number of groups for the explained variance
LEAST_TRIALS = 8  # with fewer trials, a setting without any effect often explains most of the variance
GOLDEN = 0.6180339887  # multiples of the golden ratio are evenly distributed modulo 1
Rows = Sequence[Mapping[str, Any]]


class Trials(NamedTuple):
    """The trials, in the order in which they began; arrays are (trials,)."""

    trial: np.ndarray
    score: np.ndarray  # NaN for a trial that diverged
    epochs: np.ndarray  # number of epochs at the last rung that the trial reached
    early: np.ndarray  # score at the first rung
    good: np.ndarray  # booleans, True if the score is finite
    first: str  # the first rung in words, such as "3 epochs"


class Column(NamedTuple):
    """Values of a setting as positions on an axis."""

    x: np.ndarray  # (trials,)
    labels: list[str]  # labels of positions 0, 1, … for strings and few distinct numbers; empty for a numeric axis


def trials_of(where: str, table: Rows, names: Sequence[str]) -> Trials:
    """Return the trials in the table of a search.

    Raises:
      ValueError: if there are no settings or no trials; the message begins with `where`.
    """
    if not names or not table:
        raise ValueError(f"{where}: needs settings and trials, got names={list(names)} and {len(table)} rows")
    rows = sorted(table, key=lambda row: row["trial"])
    first = min((name for name in rows[0] if name.startswith("score_")), key=lambda name: float(name[6:]))
    trial, score, epochs, early = (
        np.array([row[name] for row in rows], float) for name in ("trial", "score", "epochs", first)
    )
    return Trials(trial, score, epochs, early, np.isfinite(score), in_epochs(float(first[6:])))


def column_of(table: Rows, name: str) -> Column:
    """Return the values of a setting, in the order in which the trials began."""
    values = [row[name] for row in sorted(table, key=lambda row: row["trial"])]
    if not all(isinstance(value, int | float) for value in values):
        labels = sorted({_label(value) for value in values})
        return Column(np.array([labels.index(_label(value)) for value in values], float), labels)
    numbers = np.array(values, float)
    distinct = np.unique(numbers)
    if len(distinct) <= FEW and len(numbers) >= 3 * len(distinct):
        return Column(np.searchsorted(distinct, numbers).astype(float), [f"{value:.4g}" for value in distinct])
    return Column(numbers, [])


def explained(x: np.ndarray, score: np.ndarray) -> float:
    """Return the share of the variance of the log score that a setting explains, or 0 for fewer than two trials.

        1 - [Σ_g Σ_{i in g} (s_i - mean_g)² / (n - groups)] / [Σ_i (s_i - mean)² / (n - 1)],   clipped to [0, 1]

    A group holds trials with equal values or, if there are more than 8 values or fewer than two trials for each, with
    similar values. If any score is ≤ 0, s is the score itself instead of its logarithm.
    """
    good = np.isfinite(x) & np.isfinite(score)
    x, score = x[good], score[good]
    if len(x) < 2:
        return 0.0
    s = np.log(score) if score.min() > 0 else score
    distinct, place = np.unique(x, return_inverse=True)
    merged = len(distinct) > min(GROUPS, len(x) // 2)
    groups = min(GROUPS, max(2, len(x) // 4)) if merged else len(distinct)
    group = np.argsort(np.argsort(x, kind="stable")) * groups // len(x) if merged else place
    total = ((s - s.mean()) ** 2).sum()
    inside = sum(((s[group == g] - s[group == g].mean()) ** 2).sum() for g in range(groups))
    if total == 0:
        return 0.0
    free = (len(x) - 1) / max(1, len(x) - groups)
    return float(np.clip(1 - inside / total * free, 0, 1))


def missing_for_importance(table: Rows, names: Sequence[str]) -> int:
    """Return how many more trials are needed to estimate the importance of the settings: 8, or 3 for each setting.

    >>> from nnjax.plot._trials import missing_for_importance
    >>> missing_for_importance([{"trial": 0, "score": 1.0, "epochs": 1.0, "score_1": 1.0}], ["rate", "width"])
    7
    """
    scored = int(np.isfinite(trials_of("search", table, names).early).sum())
    return max(0, max(LEAST_TRIALS, 3 * len(names)) - scored)


def jitter(trial: np.ndarray, spread: float) -> np.ndarray:
    """Return evenly distributed offsets (trials,) within ± spread / 2 that keep equal values apart."""
    return spread * ((trial * GOLDEN) % 1 - 0.5)


def score_points(axes: Axes, x: np.ndarray, trials: Trials) -> None:
    """Draw the scores of the trials, coloured by last rung; a star marks the best, crosses mark diverged ones."""
    from matplotlib import colormaps

    score, epochs, good = trials.score, trials.epochs, trials.good
    rungs = np.unique(epochs[good])
    for i, rung in enumerate(rungs):
        own = good & (epochs == rung)
        colour = (
            NEUTRAL if len(rungs) > 1 and i == 0 else colormaps["viridis_r"](0.25 + 0.7 * i / max(1, len(rungs) - 1))
        )
        label = in_epochs(rung)
        axes.plot(x[own], score[own], "o", color=colour, markersize=3.2, markeredgewidth=0, label=label, zorder=2 + i)
    if not good.all():
        height, transform = np.full((~good).sum(), 0.97), axes.get_xaxis_transform()
        axes.plot(x[~good], height, "x", color=HELD_OUT, markersize=4, transform=transform, label="diverged")
    if good.any():
        best = np.flatnonzero(good)[score[good].argmin()]
        axes.plot(x[best], score[best], "*", color=HELD_OUT, markersize=10, label="best", zorder=20)
        if is_wide(score[good]):
            log_axis(axes, score[good], "y")
    axes.tick_params(labelsize=SMALL)


def in_epochs(number: float) -> str:
    """Return a number of epochs in words."""
    return "1 epoch" if number == 1 else f"{number:g} epochs"


def name_places(axes: Axes, labels: Sequence[str]) -> None:
    """Label the positions 0, 1, … of an axis with names, slanted if they are long."""
    shown = [shorten(label, 16) for label in labels]
    slanted = sum(map(len, shown)) > 26
    turn: dict[str, Any] = {"rotation": 28, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(shown)), shown, **turn)
    axes.set_xlim(-0.6, len(shown) - 0.4)


def is_wide(values: np.ndarray) -> bool:
    """Return True for positive numbers that span more than a factor of three."""
    return bool(values.min() > 0 and values.max() > 3 * values.min())


def log_axis(axes: Axes, values: np.ndarray, dimension: str) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2, 5, 10, … or at powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    (axes.set_xscale if dimension == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if dimension == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=log_steps(values)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def log_steps(values: np.ndarray) -> tuple[float, ...]:
    """Return the multiples of powers of ten at which a logarithmic axis for these values has ticks."""
    return (1.0, 2.0, 5.0) if values.max() < 100 * values.min() else (1.0,)


def _label(value: Any) -> str:
    return str(getattr(value, "__name__", value))
