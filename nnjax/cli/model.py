"""Load the network or the ensemble of a run, to predict new rows."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from nnjax import nn
from nnjax.cli import evaluation, run_folder, weights_file
from nnjax.cli.config import Config, make_run
from nnjax.data.table import Table
from nnjax.train.run import Run
from nnjax.types import PyTree


class Model(NamedTuple):
    """A trained network or ensemble."""

    config: Config
    table: Table  # the encoding of the rows
    outputs: Callable[[np.ndarray], np.ndarray]  # standardised features (n, features) -> (members, n, outputs)
    average: bool  # True if the members are averaged, False for a single network


def run_model(path: Path) -> Model:
    """Load the network or the ensemble of a run. Members that diverged are left out.

    Raises:
      FileNotFoundError: if the folder contains no finished run.
      ValueError: if a file has changed since the run, or if the training diverged.
    """
    config, table = run_folder.load_config(path)
    left_out = _left_out(path, config)
    run_folder.check_files(path, (run_folder.CONFIG, run_folder.TABLE, run_folder.RESULT, run_folder.WEIGHTS))

    def outputs(x: np.ndarray) -> np.ndarray:
        run = make_run(config, table.task, table.outputs, n=1)
        params, state = weights_file.load_weights(path / run_folder.WEIGHTS, *weight_shapes(run, x, config.members))
        return np.delete(evaluation.predict(run, params, state, x, members=config.members), left_out, axis=0)

    return Model(config, table, outputs, average=config.members is not None)


def weight_shapes(run: Run, x: np.ndarray, members: int | None) -> tuple[PyTree, PyTree]:
    """Return the shapes of the parameters and the state for features (n, features).

    Args:
      run: the run.
      x: the features.
      members: size of the leading axis of an ensemble; None means a single network.
    """
    shapes = jax.eval_shape(
        nn.as_layer(run.net).init, jax.random.key(0), jax.ShapeDtypeStruct((1, x.shape[1]), x.dtype)
    )
    if members is None:
        return shapes
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((members, *a.shape), a.dtype), shapes)


def _left_out(path: Path, config: Config) -> list[int]:
    """Return the indices of the members that are left out of the average because they diverged.

    Raises:
      FileNotFoundError: if the run is not finished.
      ValueError: if all members diverged or the file is damaged.
    """
    result = run_folder.load_result(path, config)
    if result["test"] is None:
        subject = "its training" if config.members is None else "the training of all its members"
        raise ValueError(f"{path} cannot predict, because {subject} diverged; train with a smaller --learning-rate")
    return result.get("left_out", [])
