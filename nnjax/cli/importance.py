"""Measure the importance of each column of a table: the drop in the test score when the column is shuffled."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nnjax.data.table import Table, feature_names

MOST_ROWS, LEAST_ROWS = 2000, 200
MOST_REPEATS, LEAST_REPEATS = 30, 5
BUDGET = 2e10  # intended number of weights times predictions, over all columns; takes a few seconds


class Importance(NamedTuple):
    """The drop in the test score when the values of each column are shuffled."""

    names: list[str]
    drops: np.ndarray  # (columns, repeats), drop in the accuracy or in R²
    score: str


def permutation_importance(
    predict: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
    table: Table,
    *,
    weights: int,
    seed: int,
) -> Importance:
    """Shuffle one column at a time among the test rows, and return the drops in the score.

    Each repetition also resamples the rows with replacement (bootstrap), so the spread over the repetitions covers
    both sources of error: the order of the shuffled values, and the choice of the test rows.

    Args:
      predict: function from standardised features (n, features) to predictions (n, outputs).
      x: standardised features of the test rows (rows, features).
      y: labels (rows,), or standardised targets (rows, targets).
      table: the encoding; the one-hot features of a categorical column are shuffled together.
      weights: total number of weights of all networks; more weights mean fewer rows and repetitions.
      seed: random seed.

    Source: Breiman 2001, "Random forests".
    """
    rng = np.random.default_rng(seed)
    predictions = BUDGET / (len(table.columns) * weights)  # number of predictions for each column
    rows = int(np.clip(predictions / LEAST_REPEATS, LEAST_ROWS, MOST_ROWS))
    if len(x) > rows:
        sample = rng.permutation(len(x))[:rows]
        x, y = x[sample], y[sample]
    n = len(x)
    repeats = int(np.clip(predictions / n, LEAST_REPEATS, MOST_REPEATS))
    resampled = rng.integers(0, n, (repeats, n))
    before = _quality(predict(x), y, table)
    drops, first = [], 0
    for column in table.columns:
        width = len(feature_names(column))
        features = slice(first, first + width)
        first += width
        shuffled = np.tile(x, (repeats, 1, 1))
        for repeat in range(repeats):
            shuffled[repeat, :, features] = x[rng.permutation(n), features]
        after = _quality(predict(shuffled.reshape(-1, x.shape[1])), np.tile(y, (repeats, *[1] * (y.ndim - 1))), table)
        drop = before[resampled] - np.take_along_axis(after.reshape(repeats, n), resampled, axis=1)
        drops.append(drop.mean(1) / _scale(y, table))
    return Importance([column.name for column in table.columns], np.array(drops), _name(table))


def _quality(prediction: np.ndarray, y: np.ndarray, table: Table) -> np.ndarray:
    """Return the quality of each prediction (n,): 1 for a correct class and 0 for a wrong one, or -(squared error)."""
    if table.task == "classification":
        return (prediction.argmax(1) == y).astype(float)
    return -((prediction.astype(float) - y) ** 2).mean(1)


def _scale(y: np.ndarray, table: Table) -> float:
    """Return the divisor that turns a mean quality into a score: 1 for accuracy, the target's variance for R²."""
    return 1.0 if table.task == "classification" else max(float(y.astype(float).var(0).mean()), 1e-12)


def _name(table: Table) -> str:
    return "accuracy" if table.task == "classification" else "R²"
