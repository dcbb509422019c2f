"""Split the data, collect the results of searches, and check the best network; shared by all peers."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from benchmarks.jobs.definitions import SettingSearch
from nnjax import data

ROUNDING = 1e-4  # relative error that float32 may cause in a loss
SEARCHES = 20  # maximum number of searches in the results, so that fast and slow peers use the same seeds


class Split(NamedTuple):
    """Rows for training, validation and testing; no search sees the test rows."""

    x: np.ndarray
    y: np.ndarray  # classes (rows,), or targets of a regression (rows, 1)
    held_out_x: np.ndarray
    held_out_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


class Searches(NamedTuple):
    """The results of the searches so far."""

    seed: int  # seed of the next search
    losses: tuple[float, ...]  # validation loss of the best trial of each search
    trials: int  # number of trials of the last search
    layers: list[np.ndarray] | None  # w, b, w, b, … of the best network of the last search; None if unknown
    test_losses: tuple[float, ...] = ()  # test loss of the best network of each search
    epochs: tuple[float, ...] = ()  # total epochs of all trials in each search


def split_rows(job: SettingSearch, seed: int) -> Split:
    """Split the rows in the same way for all peers: 60 % for training, 20 % for validation, 20 % for testing.

    Inputs of tables and targets of regressions are standardised by the mean and deviation of the training rows.

    Raises:
      ValueError: if the data set is not on this machine.
    """
    x, y = _all_rows(job.data)
    classes = job.outputs > 1
    if job.rows is not None:
        _, rows = data.split_rows(y, job.rows / len(y), seed=seed, stratify=classes)
        x, y = x[rows], y[rows]
    rows, rest = data.split_rows(y, 0.4, seed=seed, stratify=classes)
    held_out, test = data.split_rows(y[rest], 0.5, seed=seed, stratify=classes)
    parts = rows, rest[held_out], rest[test]
    if x.dtype == np.float64:
        x = (x - x[rows].mean(0)) / x[rows].std(0)
    y = y.astype(np.int32) if classes else ((y - y[rows].mean()) / y[rows].std()).astype(np.float32)[:, None]
    arrays = [array for part in parts for array in (x[part].astype(np.float32), y[part])]
    return Split(*arrays)


def add_search(
    job: SettingSearch, searches: Searches, loss: float, trials: int, epochs: float, layers: list[np.ndarray] | None
) -> Searches:
    """Add the results of a further search, with its test loss, and return all results."""
    split = split_rows(job, searches.seed)
    test_loss = np.nan if layers is None else network_loss(job, layers, split.test_x, split.test_y)
    return Searches(
        searches.seed + 1,
        (*searches.losses, loss),
        trials,
        layers,
        (*searches.test_losses, test_loss),
        (*searches.epochs, epochs),
    )


def search_error(job: SettingSearch, searches: Searches) -> float:
    """Check that all trials were run and that the best network has the reported loss.

    Returns:
      The relative error of the loss compared with float64, divided by `ROUNDING`; infinity if trials are missing, 0 if
      the best network is unknown.
    """
    if searches.trials != job.trials:
        return np.inf
    if searches.layers is None:
        return 0.0
    split = split_rows(job, searches.seed - 1)
    loss = network_loss(job, searches.layers, split.held_out_x, split.held_out_y)
    return float(abs(loss - searches.losses[-1]) / (ROUNDING * max(loss, 1e-2)))


def network_loss(job: SettingSearch, layers: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> float:
    """Return the mean loss of a network, computed in float64."""
    h = x.astype(np.float64)
    for i in range(0, len(layers), 2):
        h = (np.maximum(h, 0) if i else h) @ layers[i].astype(np.float64) + layers[i + 1]
    if job.outputs == 1:
        return float(((h - y) ** 2).mean())
    h -= h.max(1, keepdims=True)
    return float((np.log(np.exp(h).sum(1)) - h[np.arange(len(h)), y]).mean())


def search_figures(searches: Searches) -> dict[str, float]:
    """Return the number of searches, mean losses with half their 95 % intervals, and the mean number of epochs."""
    losses: Any = np.array(searches.losses[:SEARCHES])
    test_losses: Any = np.array(searches.test_losses[:SEARCHES])
    figures = {"searches": float(len(losses)), "loss": losses.mean(), "loss ±": half_interval(losses)}
    if np.isfinite(test_losses).all():
        figures |= {"test loss": test_losses.mean(), "test loss ±": half_interval(test_losses)}
    return {name: float(figure) for name, figure in figures.items()} | {"epochs": float(np.mean(searches.epochs))}


def half_interval(values: np.ndarray) -> float:
    """Return half the width of the 95 % interval of the mean, or 0 for a single value."""
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0


@cache
def _all_rows(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (rows, inputs), which are float64 if they need standardisation, and targets (rows,)."""
    if name in ("breast_cancer", "wine", "diabetes"):
        from sklearn import datasets

        return getattr(datasets, f"load_{name}")(return_X_y=True)
    try:
        parts = data.load(name)
    except FileNotFoundError as error:
        raise ValueError(f"{name} is not on this machine: {error}") from error
    x = np.concatenate([np.asarray(part.x).reshape(len(part.x), -1) for part in (parts.train, parts.test)])
    return x.astype(np.float32), np.concatenate([np.asarray(part.y) for part in (parts.train, parts.test)])
