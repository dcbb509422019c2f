"""The folder of a run: what it was, what came of it, and the weights. No file is ever half-written."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.cli.config import SETTINGS, SWEPT, Config, check_kinds, make_net
from nnjax.data.table import Column, Table
from nnjax.storage import tensor_file
from nnjax.storage.atomic_write import write_file, write_json
from nnjax.types import PyTree

CONFIG, TABLE, METRICS, RESULT, WEIGHTS, RECEIPT, CHECKPOINTS = (
    "config.json",
    "table.json",
    "metrics.csv",
    "result.json",
    "weights.safetensors",
    "receipt.json",  # the last file of a run
    "checkpoints",
)
NOT_SETTINGS = ("versions", "resumed_anyway")  # what else stands in CONFIG and SWEEP
SWEEP, ROWS = "sweep.json", "sweep.csv"  # the first and the last file of a sweep


def create(path: Path) -> Path:
    """A new folder for a run or a sweep.

    Raises:
      FileExistsError: where there is one already, finished or not, or a file.
    """
    if path.is_file():
        raise FileExistsError(f"{path} is a file; choose a folder with --out")
    for what, command, first, last in (("run", "train", CONFIG, RECEIPT), ("sweep", "sweep", SWEEP, ROWS)):
        if (path / first).exists() and not (path / last).exists():
            raise FileExistsError(
                f"{path} holds a {what} that is not finished; go on with: "
                f"nnjax {command} --resume {shlex.quote(str(path))}"
            )
    if any((path / name).exists() for name in (CONFIG, WEIGHTS, SWEEP)):
        raise FileExistsError(f"{path} holds a run already; choose another folder with --out")
    path.mkdir(parents=True, exist_ok=True)
    return path


def finished(path: Path) -> bool:
    """Whether a run came to its end."""
    return (path / RECEIPT).is_file()


def save_weights(path: Path, params: PyTree, state: PyTree) -> None:
    """Parameters and state as safetensors, named by their paths, `params/1/w`, with a SHA-256 of each."""
    write_file(path, *tensor_file.serialize({"params": params, "state": state}, "nnjax-weights", {}))


def resumed_anyway(path: Path) -> bool:
    """Whether a run or a sweep once went on although the machine or a library had changed."""
    return bool(json.loads(_first(path).read_text()).get("resumed_anyway", False))


def note_resumed_anyway(path: Path) -> None:
    """Note that a run or a sweep goes on although something has changed, so that it cannot be repeated to the bit."""
    if not resumed_anyway(path):
        write_json(_first(path), json.loads(_first(path).read_text()) | {"resumed_anyway": True})


def _first(path: Path) -> Path:
    """The file with what was asked of a run or a sweep."""
    return path / (CONFIG if (path / CONFIG).is_file() else SWEEP)


def load_weights(path: Path, params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
    """Parameters and state from a file, in the structure of those given (arrays or shapes).

    Raises:
      FileNotFoundError: where there is no file.
      ValueError: for a damaged file, or where a name, shape or dtype differs, with all of them.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights {path}")
    leaves, header = tensor_file.read(path)
    like = {"params": params, "state": state}
    tree = jax.tree.map(
        jnp.asarray, tensor_file.restore_structure(like, leaves, header.empty, f"{path} is of another network:")
    )
    return tree["params"], tree["state"]


def read_weights(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    """The leaves of a file of weights by name, even where they are damaged; and what is damaged, if anything is.

    Raises:
      FileNotFoundError: where there is no file.
      ValueError: where the file is cut short or its header damaged, so that there are no leaves.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights {path}")
    leaves: dict[str, np.ndarray] = {}
    with path.open("rb") as file:
        header = tensor_file.read_header(file, path)
        try:
            for name, leaf in tensor_file.read_leaves(file, path, header):
                leaves[name] = leaf
        except ValueError as error:
            return leaves, str(error)
    return leaves, None


def save_config(path: Path, config: Config, table: Table, versions: dict[str, str]) -> None:
    """The settings, and how rows become numbers; the settings last, for with them the folder is a run."""
    write_json(path / TABLE, {**table._asdict(), "columns": [list(column) for column in table.columns]})
    write_json(path / CONFIG, {**asdict(config), "versions": versions})


def load_config(path: Path) -> tuple[Config, Table]:
    """The settings of a run, and how rows become numbers.

    Raises:
      FileNotFoundError, ValueError: where the folder holds no run, or files that are damaged.
    """
    if not (path / CONFIG).is_file() or not (path / TABLE).is_file():
        sweep = "; it holds a sweep" if (path / SWEEP).is_file() else ""
        raise FileNotFoundError(f"{path} holds no run: no {CONFIG} and {TABLE}{sweep}")
    try:
        settings = json.loads((path / CONFIG).read_text())
        table = json.loads((path / TABLE).read_text())
        for name in NOT_SETTINGS:
            settings.pop(name, None)
        table["columns"] = [Column(*column) for column in table["columns"]]
        check_kinds(settings, SETTINGS)
        config = Config(**settings)
        make_net(config, outputs=1)
        return config, Table(**table)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: {CONFIG} or {TABLE} is damaged: {error}") from error


def load_sweep(path: Path) -> dict[str, Any]:
    """What was asked of a sweep.

    Raises:
      FileNotFoundError, ValueError: where the folder holds no sweep, or a file that is damaged.
    """
    if not (path / SWEEP).is_file():
        run = "; it holds a run" if (path / CONFIG).is_file() else ""
        raise FileNotFoundError(f"{path} holds no sweep: no {SWEEP}{run}")
    try:
        asked = dict(json.loads((path / SWEEP).read_text()))
        for name in NOT_SETTINGS:
            asked.pop(name, None)
        check_kinds(asked, SETTINGS | SWEPT)
        return asked
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {SWEEP} is damaged: {error}") from error
