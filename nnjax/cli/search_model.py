"""Save the best networks of a search, and load them to predict new rows."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from nnjax import train
from nnjax.cli import evaluation, run_folder, weights_file
from nnjax.cli.config import Config, make_run, with_defaults
from nnjax.cli.model import Model, weight_shapes
from nnjax.cli.search_folder import load_search
from nnjax.cli.search_request import replicates_of
from nnjax.cli.search_result import SearchResult
from nnjax.data.table import Table
from nnjax.train.run import Run
from nnjax.types import PyTree


def save_networks(path: Path, outcome: train.Search, result: SearchResult) -> None:
    """Write the networks of the best trial and of the ensemble, with names such as `params/17/1/w` for trial 17.

    Args:
      path: folder of the search.
      outcome: the result of `train.search`.
      result: the content of RESULT, in which some trial is the best.
    """
    trials = {result["best"], *result["ensemble"]}
    networks = {str(network.trial): network for network in outcome.networks if network.trial in trials}
    params: PyTree = {trial: network.params for trial, network in networks.items()}
    state: PyTree = {trial: network.state for trial, network in networks.items()}
    weights_file.save_weights(path / run_folder.WEIGHTS, params, state)


def search_model(path: Path, *, ensemble: bool) -> Model:
    """Load the network of the best trial, or the ensemble of the best trials. Seeds and folds are averaged.

    Args:
      path: folder of a finished search.
      ensemble: True for the ensemble that the search selected, in which a trial can count several times.

    Raises:
      FileNotFoundError: if the folder contains no finished search.
      ValueError: if a file has changed since the search, or if all trials diverged.
    """
    subject = load_search(path)
    config, result = subject.request.config, subject.result
    if result["best"] is None:
        raise ValueError(f"{path} cannot predict, because all its trials diverged; search smaller learning rates")
    table, replicates = run_folder.load_table(path), replicates_of(subject.settings)
    rows = {row["trial"]: row for row in subject.table}
    stored = sorted({result["best"], *result["ensemble"]})
    runs = {t: _trial_run(config, table, {name: rows[t][name] for name in subject.request.space}) for t in stored}
    trials = result["ensemble"] if ensemble else [result["best"]]

    def outputs(x: np.ndarray) -> np.ndarray:
        shapes = {str(t): weight_shapes(run, x, replicates) for t, run in runs.items()}
        like = [{trial: own[i] for trial, own in shapes.items()} for i in range(2)]
        params, state = weights_file.load_weights(path / run_folder.WEIGHTS, *like)
        predictions = {
            t: evaluation.predict(runs[t], params[str(t)], state[str(t)], x, members=replicates) for t in set(trials)
        }
        return np.concatenate([predictions[t] for t in trials])

    return Model(config, table, outputs, average=ensemble or replicates is not None)


def _trial_run(config: Config, table: Table, settings: Mapping[str, Any]) -> Run:
    """Return the run of a trial, which can predict but not train, because its learning-rate schedule is empty."""
    numbers = dict(settings)
    width = numbers.pop("width", None)
    own = with_defaults(replace(config, **numbers), table.task, 1)
    return make_run(own, table.task, table.outputs, 1, None if width is None else jnp.asarray(width))
