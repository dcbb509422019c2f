"""Turn settings into arguments of `train.fit`, `train.sweep` and `train.replay`."""

import sys
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from nnjax import train
from nnjax.cli import run_folder
from nnjax.cli.config import Config
from nnjax.cli.prepare import Prepared
from nnjax.cli.progress import progress_lines
from nnjax.train import Result
from nnjax.train.engine.options import Resume


def run_arguments(config: Config, mesh: Mesh | None) -> dict[str, Any]:
    """Return the arguments that determine the exact result, except the run, the data and the number of members."""
    return {
        "epochs": config.epochs,
        "key": jax.random.key(config.seed),
        "strategy": config.strategy,
        "mesh": mesh,
        "group": config.group,
    }


def fit_arguments(
    config: Config, prepared: Prepared, mesh: Mesh | None, *, path: Path | None = None, resume: Resume = False
) -> dict[str, Any]:
    """Return all arguments that `train.fit` and `train.sweep` share.

    Args:
      config: the settings of the run or sweep.
      prepared: the data; only the validation rows are used.
      mesh: the devices among which the members or batches are split; None means one device.
      path: folder of the run or the sweep; None to save nothing.
      resume: see `train.fit`.
    """
    assert config.epochs is not None
    return run_arguments(config, mesh) | {
        "validation": prepared.held_out,
        "patience": config.patience,
        "out": None if path is None else path / run_folder.CHECKPOINTS,
        "resume": resume,
        "save_every": config.save_every,
        "keep": config.keep,
        "callbacks": [] if sys.stderr.isatty() else [progress_lines(config.epochs)],  # in a terminal, `fit` shows a bar
    }


def fit(
    config: Config, prepared: Prepared, mesh: Mesh | None, *, path: Path | None = None, resume: Resume = False
) -> Result:
    """Train the network or the ensemble; see `fit_arguments` for the arguments."""
    arguments = fit_arguments(config, prepared, mesh, path=path, resume=resume)
    return train.fit(prepared.run, prepared.training, members=config.members, **arguments)
