"""The folder of a run or a sweep: settings, results and weights. Every file is written completely or not at all."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.cli.config import SETTINGS, SWEEP_SETTINGS, Config, check_types, make_net
from nnjax.cli.console import quote
from nnjax.data.table import Column, Table
from nnjax.storage import tensor_file
from nnjax.storage.atomic_write import write_file, write_json
from nnjax.types import PyTree

CONFIG, TABLE, METRICS, RESULT, WEIGHTS, RECEIPT, CHECKPOINTS = (
    "config.json",  # from this file on, the folder holds a run
    "table.json",
    "metrics.csv",
    "result.json",
    "weights.safetensors",
    "receipt.json",  # the last file of a run
    "checkpoints",
)
SWEEP, ROWS = "sweep.json", "sweep.csv"  # the first and the last file of a sweep
NOT_SETTINGS = ("versions", "resumed_anyway")  # entries of CONFIG and SWEEP that are not settings


def create(path: Path) -> Path:
    """Create the folder of a new run or sweep.

    Raises:
      FileExistsError: if it already holds a run or sweep, finished or not, or is a file.
    """
    if path.is_file():
        raise FileExistsError(f"{path} is a file; choose a folder with --out")
    for kind, command, first, last in (("run", "train", CONFIG, RECEIPT), ("sweep", "sweep", SWEEP, ROWS)):
        if (path / first).exists() and not (path / last).exists():
            raise FileExistsError(
                f"{path} holds an unfinished {kind}; continue with: nnjax {command} --resume {quote(path)}"
            )
    if any((path / name).exists() for name in (CONFIG, WEIGHTS, SWEEP, CHECKPOINTS)):
        raise FileExistsError(f"{path} already holds a run; choose another folder with --out")
    path.mkdir(parents=True, exist_ok=True)
    return path


def is_finished(path: Path) -> bool:
    """Return True if the run or sweep has written its last file."""
    return (path / RECEIPT).is_file() or (path / ROWS).is_file()


def save_config(path: Path, config: Config, table: Table, versions: dict[str, str]) -> None:
    """Write the table (the encoding of rows), then the settings. With these, the folder holds a run."""
    write_json(path / TABLE, {**table._asdict(), "columns": [list(column) for column in table.columns]})
    write_json(path / CONFIG, {**asdict(config), "versions": versions})


def load_config(path: Path) -> tuple[Config, Table]:
    """Return the settings of a run and its table (the encoding of rows).

    Raises:
      FileNotFoundError: if the folder holds no run.
      ValueError: if a file is damaged.
    """
    if not (path / CONFIG).is_file() or not (path / TABLE).is_file():
        sweep = "; it holds a sweep" if (path / SWEEP).is_file() else ""
        raise FileNotFoundError(f"{path} holds no run: {CONFIG} or {TABLE} is missing{sweep}")
    try:
        settings = _read_settings(path / CONFIG, SETTINGS)
        table = json.loads((path / TABLE).read_text())
        table["columns"] = [Column(*column) for column in table["columns"]]
        config = Config(**settings)
        make_net(config, outputs=1)
        return config, Table(**table)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: {CONFIG} or {TABLE} is damaged: {error}") from error


def load_sweep(path: Path) -> dict[str, Any]:
    """Return the settings of a sweep; swept settings are text, such as "1e-4..1e-1:log:8".

    Raises:
      FileNotFoundError: if the folder holds no sweep.
      ValueError: if the file is damaged.
    """
    if not (path / SWEEP).is_file():
        run = "; it holds a run" if (path / CONFIG).is_file() else ""
        raise FileNotFoundError(f"{path} holds no sweep: {SWEEP} is missing{run}")
    try:
        return _read_settings(path / SWEEP, SWEEP_SETTINGS)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {SWEEP} is damaged: {error}") from error


def _read_settings(file: Path, types: dict[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in json.loads(file.read_text()).items() if name not in NOT_SETTINGS}
    check_types(settings, types)
    return settings


def resumed_anyway(path: Path) -> bool:
    """Return True if the run or sweep was resumed with --anyway."""
    return bool(json.loads(_first_file(path).read_text()).get("resumed_anyway", False))


def record_resumed_anyway(path: Path) -> None:
    """Record that the run or sweep was resumed with --anyway, so that it cannot be reproduced bit for bit."""
    if not resumed_anyway(path):
        write_json(_first_file(path), json.loads(_first_file(path).read_text()) | {"resumed_anyway": True})


def _first_file(path: Path) -> Path:
    return path / (CONFIG if (path / CONFIG).is_file() else SWEEP)


def save_weights(path: Path, params: PyTree, state: PyTree) -> None:
    """Write parameters and state as safetensors, named by their paths (`params/1/w`), each with its SHA-256."""
    write_file(path, *tensor_file.serialize({"params": params, "state": state}, "nnjax-weights", {}))


def load_weights(path: Path, params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
    """Return the parameters and the state in a file.

    Args:
      path: the path of the file.
      params: arrays or shapes in the expected structure.
      state: arrays or shapes in the expected structure.

    Raises:
      FileNotFoundError: if there is no file.
      ValueError: if the file is damaged, or if names, shapes or dtypes differ; the message lists all differences.
    """
    _check_exists(path)
    leaves, header = tensor_file.read(path)
    like = {"params": params, "state": state}
    error = f"{path} is from a different network:"
    tree = jax.tree.map(jnp.asarray, tensor_file.restore_structure(like, leaves, header.empty, error))
    return tree["params"], tree["state"]


def read_weights(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    """Return the leaves of a weights file by name, and a description of the damage; None if it is intact.

    Raises:
      FileNotFoundError: if there is no file.
    """
    _check_exists(path)
    leaves: dict[str, np.ndarray] = {}
    try:
        with path.open("rb") as file:
            header = tensor_file.read_header(file, path)
            for name, leaf in tensor_file.read_leaves(file, path, header):
                leaves[name] = leaf
    except ValueError as error:
        return leaves, str(error)
    return leaves, None


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}")
