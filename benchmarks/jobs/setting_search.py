"""Code that peers share for searches: the rows, the results of the searches so far, the check of the best network."""

from typing import Any, NamedTuple

import numpy as np

from benchmarks.jobs.definitions import SettingSearch
from nnjax import data

ROUNDING = 1e-4  # relative error of a loss in float32


class Split(NamedTuple):
    """Rows to train on, and rows for validation."""

    x: np.ndarray
    y: np.ndarray
    held_out_x: np.ndarray
    held_out_y: np.ndarray


class Searches(NamedTuple):
    """The searches so far."""

    seed: int  # seed of the next search
    losses: tuple[float, ...]  # validation loss of the best trial of each search
    trials: int  # number of trials of the last search
    layers: list[np.ndarray] | None  # w, b, w, b, … of the best network of the last search; None if it is not returned


def split_rows(job: SettingSearch) -> Split:
    """Return the rows, the same for all peers and searches: a fifth of the training part is held out.

    Raises:
      ValueError: if the data set is not on this machine.
    """
    try:
        train = data.load(job.data).train
    except FileNotFoundError as error:
        raise ValueError(f"{job.data} is not on this machine: {error}") from error
    x, y = np.asarray(train.x).reshape(len(train.x), -1), np.asarray(train.y)
    rows, held_out = data.split_rows(y, 0.2)
    return Split(x[rows][: job.rows], y[rows][: job.rows], x[held_out], y[held_out])


def search_error(job: SettingSearch, split: Split, searches: Searches) -> float:
    """Check that all trials were run, and that the best network has the loss that is reported.

    Returns:
      The relative error of the loss, against float64, divided by `ROUNDING`; infinity for a different number of trials.
    """
    if searches.trials != job.trials:
        return np.inf
    if searches.layers is None:
        return 0.0
    h = split.held_out_x.astype(np.float64)
    for i in range(0, len(searches.layers), 2):
        h = (np.maximum(h, 0) if i else h) @ searches.layers[i].astype(np.float64) + searches.layers[i + 1]
    h -= h.max(1, keepdims=True)
    loss = (np.log(np.exp(h).sum(1)) - h[np.arange(len(h)), split.held_out_y]).mean()
    return float(abs(loss - searches.losses[-1]) / (ROUNDING * max(loss, 1e-2)))


def search_figures(searches: Searches) -> dict[str, float]:
    """Return the number of searches, and the mean and standard deviation of the best loss."""
    losses: Any = np.array(searches.losses)
    spread = float(losses.std(ddof=1)) if len(losses) > 1 else 0.0
    return {"searches": len(losses), "loss": float(losses.mean()), "sd": spread}
