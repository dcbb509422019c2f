"""Split the examples into folds, collect the results of runs, and check the networks; shared by all peers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.jobs.definitions import TimeToAccuracy
from nnjax import data
from nnjax.train.folds import Folds, Rows, k_fold

TIES = 2  # number of examples per fold that rounding may classify differently


class Examples(NamedTuple):
    """All examples, and the training and held-out rows of each fold."""

    x: np.ndarray  # (rows, features)
    y: np.ndarray  # (rows,)
    folds: Folds  # folds of NumPy arrays

    @property
    def largest_train_size(self) -> int:
        """Return the number of training rows in the largest fold."""
        return int(np.max(self.folds.train.sizes))


class Runs(NamedTuple):
    """The results of the runs so far."""

    seed: int  # seed of the next run
    ends: tuple[tuple[Any, Any], ...]  # (number of epochs, mean accuracy) at the end of each run
    accuracies: Any  # (folds,), accuracies of the last run
    networks: Any  # networks of the last run, in the peer's own format


def fold_examples(job: TimeToAccuracy) -> Examples:
    """Return the examples and folds, which are the same for all peers and runs.

    Raises:
      ValueError: if the data set is not on this machine.
    """
    try:
        splits = data.load(job.data)
    except FileNotFoundError as error:
        raise ValueError(f"{job.data} is not on this machine: {error}") from error
    x, y = (
        np.concatenate([np.asarray(array) for array in pair])
        for pair in zip(splits.train[:2], splits.test[:2], strict=True)
    )
    if job.folds is not None:
        return Examples(x, y, k_fold(jax.random.key(0), len(x), job.folds))
    n = len(splits.train.x)
    fixed = (np.arange(n), np.arange(n, len(x)))
    folds = Folds(*(Rows(rows[None].astype(np.int32), np.array([len(rows)], np.int32)) for rows in fixed))
    return Examples(x, y, folds)


def accuracy_error(
    job: TimeToAccuracy, examples: Examples, runs: Runs, layers: Sequence[Sequence[np.ndarray]]
) -> float:
    """Check that the networks of the last run have the reported accuracies and that it ended at the right epoch.

    Args:
      job: the job.
      examples: the examples and folds.
      runs: the state after the last run.
      layers: w, b, w, b, … of the network of each fold.

    Returns:
      The largest difference in the number of correct examples, divided by `TIES`; infinity if the run ended before it
      reached the target or its last epoch, or if the reported mean is not the mean of the folds.
    """
    epochs, mean = (float(np.asarray(value)) for value in runs.ends[-1])
    difference = abs(mean - float(np.mean(np.asarray(runs.accuracies))))
    if difference > 1e-6 or not 1 <= epochs <= job.epochs or (mean < np.float32(job.target) and epochs < job.epochs):
        return np.inf
    held_out = examples.folds.held_out
    errors = []
    for fold, (network, accuracy) in enumerate(zip(layers, np.asarray(runs.accuracies), strict=True)):
        rows = held_out.table[fold, : held_out.sizes[fold]]
        h = examples.x[rows].astype(np.float64)
        for i in range(0, len(network), 2):
            h = (np.maximum(h, 0) if i else h) @ network[i].astype(np.float64) + network[i + 1]
        correct = (h.argmax(-1) == examples.y[rows]).sum()
        errors.append(abs(float(accuracy) * len(rows) - correct) / TIES)
    return max(errors)


def accuracy_figures(job: TimeToAccuracy, runs: Runs) -> dict[str, float]:
    """Return the number of runs, the success rate, the mean number of epochs, and the mean final accuracy."""
    epochs, means = np.array([[float(np.asarray(value)) for value in end] for end in runs.ends]).T
    return {
        "runs": len(means), "success": float((means >= np.float32(job.target)).mean()),
        "epochs": float(epochs.mean()), "accuracy": float(means.mean()),
    }  # fmt: skip
