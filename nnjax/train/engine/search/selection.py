"""Select ensembles of networks from a search, greedily on the validation data."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nnjax import losses
from nnjax.data import take_rows
from nnjax.metrics import weighted_mean
from nnjax.train.compare import unbound_function
from nnjax.train.engine.search.results import TrialNetwork
from nnjax.train.folds import Rows
from nnjax.train.objective import losses_of
from nnjax.types import Data, Params, PyTree, State
from nnjax.uncertainty import log_mean_probabilities

Combine = Callable[[PyTree], PyTree]  # predictions (members, n, ...) -> prediction (n, ...)


class Selection(NamedTuple):
    """An ensemble of networks. A network that was selected twice counts twice."""

    members: list[TrialNetwork]  # in the order of their selection
    score: float  # the validation loss of the ensemble
    combine: Combine

    def predict(self, x: PyTree) -> PyTree:
        """Return the combined prediction for inputs (rows, ...)."""
        return self.combine(_stacked([_predictions(member, x) for member in self.members]))


def select(
    networks: Sequence[TrialNetwork],
    validation: Data,
    k: int,
    combine: Combine | None,
    held_out_rows: Rows | None = None,
) -> Selection:
    """Select an ensemble of `k` networks greedily by the validation loss, with replacement.

    Args:
      networks: the candidates.
      validation: data that the networks were not trained on.
      k: number of networks to select.
      combine: see `Search.ensemble`.
      held_out_rows: rows of `validation` for each fold, if the networks of a trial were trained on folds.

    Raises:
      ValueError: if the runs have no `loss` or no `predict`.

    Source: Caruana et al. 2004, Ensemble selection from libraries of models.
    """
    run: Any = networks[0].run
    loss = getattr(run, "loss", None)
    if loss is None or not hasattr(run, "predict"):
        raise ValueError("Search.ensemble: needs runs with a loss and predict, such as train.Run(net, loss, …)")
    probabilities = unbound_function(loss) is losses.cross_entropy
    combine = combine or (log_mean_probabilities if probabilities else mean_prediction)
    if held_out_rows is None:
        predictions = [_predictions(network, validation.x) for network in networks]
    else:
        predictions = [_fold_predictions(network, validation.x, held_out_rows) for network in networks]
        validation = take_rows(validation, np.asarray(held_out_rows.table)[_is_row(held_out_rows)])

    def score(members: Sequence[int]) -> float:
        combined = combine(_stacked([predictions[i] for i in members]))
        return float(weighted_mean(losses_of(loss, combined, validation.y), validation.weights))

    members = greedy_selection(score, len(networks), k)
    return Selection([networks[i] for i in members], score(members), combine)


def greedy_selection(score: Callable[[Sequence[int]], float], candidates: int, k: int) -> list[int]:
    """Select `k` candidates one by one, with replacement, each minimising the score of the selection so far.

    >>> from nnjax.train.engine.search.selection import greedy_selection
    >>> numbers = [5.0, 1.0, -3.0]
    >>> greedy_selection(lambda members: abs(sum(numbers[i] for i in members) / len(members)), 3, 4)  # mean near 0
    [1, 1, 2, 1]
    """
    selected: list[int] = []
    for _ in range(k):
        scores = [score([*selected, i]) for i in range(candidates)]
        selected.append(int(np.nanargmin(scores)))
    return selected


def mean_prediction(predictions: PyTree) -> PyTree:
    """Return the mean over the members."""
    return jax.tree.map(lambda a: a.mean(0), predictions)


def _predictions(network: TrialNetwork, x: PyTree) -> PyTree:
    """Return the predictions (replicates, rows, ...) of a trial's networks."""
    run: Any = network.run
    if network.replicates is None:
        return jax.tree.map(lambda a: a[None], run.predict(network.params, network.state, x))
    return jax.vmap(run.predict, in_axes=(0, 0, None))(network.params, network.state, x)


def _fold_predictions(network: TrialNetwork, x: PyTree, rows: Rows) -> PyTree:
    """Return the predictions (1, rows, ...) for the rows that the folds hold out, each by the network of its fold."""
    run: Any = network.run

    def predict(params: Params, state: State, own: Array) -> PyTree:
        return run.predict(params, state, jax.tree.map(lambda a: jnp.asarray(a)[own], x))

    padded = jax.vmap(predict)(network.params, network.state, jnp.asarray(rows.table))
    return jax.tree.map(lambda a: a[_is_row(rows)][None], padded)


def _is_row(rows: Rows) -> np.ndarray:
    """Return a mask (folds, m) that is False for the padding of the rows."""
    return np.arange(rows.table.shape[1]) < np.asarray(rows.sizes)[:, None]


def _stacked(predictions: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *predictions)
