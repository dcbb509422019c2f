"""The folder of a run: what it was, what came of it, and the weights. No file is ever half-written."""

import csv
import errno
import io
import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.data.table import Column, Table
from nnjax.train import tensors
from nnjax.train.config import SETTINGS, SWEPT, Config, check_kinds, make_net
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


def write(path: Path, *content: bytes | memoryview) -> None:
    """A whole file or none: written beside its place, synced, renamed; the new name is synced too.

    Args:
      path: of the file.
      content: one or several parts, written one after the other.

    Raises:
      OSError: with the path and the number of bytes; what stood at the path is whole.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            for part in content:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_names(path.parent)
    except BaseException as error:  # Ctrl-C too
        with suppress(OSError):
            beside.unlink()
        error.add_note(f"while writing {sum(map(len, content))} bytes to {path}")
        raise


def _sync_names(path: Path) -> None:
    """Renamed files keep their names through a power cut."""
    try:
        folder = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that know no such thing
            raise
    finally:
        os.close(folder)


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


def write_json(path: Path, content: Any) -> None:
    """Plain values as JSON, which knows no NaN and no infinity: they are null."""
    write(path, (json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {name: _finite(value) for name, value in content.items()}
    return [_finite(value) for value in content] if isinstance(content, list | tuple) else content


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Records as CSV, one line each, with a column for every name in any of them."""
    names = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write(path, text.getvalue().encode())


def save_weights(path: Path, params: PyTree, state: PyTree) -> None:
    """Parameters and state as safetensors, named by their paths, `params/1/w`, with a SHA-256 of each."""
    write(path, *tensors.pack({"params": params, "state": state}, "nnjax-weights", {}))


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
    leaves, header = tensors.read(path, "safetensors file")
    like = {"params": params, "state": state}
    tree = jax.tree.map(jnp.asarray, tensors.into(like, leaves, header.empty, f"{path} is of another network:"))
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
        header = tensors.read_header(file, path, "safetensors file")
        try:
            for name, leaf in tensors.read_leaves(file, path, header):
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
