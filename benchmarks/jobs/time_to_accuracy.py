"""What the peers of the accuracy case share: the examples, what is kept of the runs, and whether they were right."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.jobs.definitions import Reaching
from nnjax import data
from nnjax.train.folds import Folds, Rows, k_fold

TIES = 2  # examples of a fold whose two largest outputs may be so near that rounding decides


class Examples(NamedTuple):
    """All examples, and which of them are trained on and held out, in each fold."""

    x: np.ndarray  # (rows, features)
    y: np.ndarray  # (rows,)
    folds: Folds  # of NumPy arrays

    @property
    def trained(self) -> int:
        """Rows that the largest fold is trained on."""
        return int(np.max(self.folds.train.sizes))


class Reached(NamedTuple):
    """The runs so far."""

    seed: int  # of the next
    runs: tuple[tuple[Any, Any], ...]  # (epochs, mean accuracy at the end) of each
    accuracies: Any  # (folds,) of the last
    layers: Any  # its networks, as the peer has them


def examples(job: Reaching) -> Examples:
    """The same for all peers, in all runs.

    Raises:
      ValueError: where a data set is not on this machine.
    """
    try:
        loaded = data.load(job.data)
    except FileNotFoundError as error:
        raise ValueError(f"{job.data} is not on this machine: {error}") from error
    x, y = (
        np.concatenate([np.asarray(a) for a in pair]) for pair in zip(loaded.train[:2], loaded.test[:2], strict=True)
    )
    if job.folds is not None:
        return Examples(x, y, k_fold(jax.random.key(0), len(x), job.folds))
    n = len(loaded.train.x)
    fixed = (np.arange(n), np.arange(n, len(x)))
    return Examples(x, y, Folds(*(Rows(r[None].astype(np.int32), np.array([len(r)], np.int32)) for r in fixed)))


def reaching_error(job: Reaching, given: Examples, reached: Reached, layers: Sequence[Sequence[np.ndarray]]) -> float:
    """Whether the networks of the last run are as good as it said, and it ended when it should.

    Args:
      job: what was to be done.
      given: the examples.
      reached: the state after that run.
      layers: w, b, w, b, … of the network of each fold.
    """
    epochs, mean = (float(np.asarray(value)) for value in reached.runs[-1])
    worst = abs(mean - float(np.mean(np.asarray(reached.accuracies))))
    if worst > 1e-6 or not 1 <= epochs <= job.epochs or (mean < np.float32(job.target) and epochs < job.epochs):
        return np.inf
    errors = []
    for f, (network, said) in enumerate(zip(layers, np.asarray(reached.accuracies), strict=True)):
        rows = given.folds.held_out.table[f, : given.folds.held_out.sizes[f]]
        h = given.x[rows].astype(np.float64)
        for i in range(0, len(network), 2):
            h = (np.maximum(h, 0) if i else h) @ network[i].astype(np.float64) + network[i + 1]
        right = (h.argmax(-1) == given.y[rows]).sum()
        errors.append(abs(float(said) * len(rows) - right) / TIES)
    return max(errors)


def figures(job: Reaching, reached: Reached) -> dict[str, float]:
    """Of all runs so far: how many there are, which share reached the target, after how many epochs, and how far."""
    epochs, means = np.array([[float(np.asarray(value)) for value in run] for run in reached.runs]).T
    return {
        "runs": len(means), "success": float((means >= np.float32(job.target)).mean()),
        "epochs": float(epochs.mean()), "accuracy": float(means.mean()),
    }  # fmt: skip
