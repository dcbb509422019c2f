"""The data that the settings name, in their parts, and the run on them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.markup import escape

from nnjax import data
from nnjax.cli.config import Config, make_run
from nnjax.cli.shared import say
from nnjax.data import Dataset
from nnjax.data._idx import DIRECTORY
from nnjax.data._load import NAMES
from nnjax.train.run import Run
from nnjax.types import Data


class Prepared(NamedTuple):
    """The data in their parts, and the run."""

    dataset: Dataset
    training: Data
    rows: np.ndarray  # of the training data, in the file or in the training part of a named set
    held_out: Data | None
    run: Run


def place(name: str) -> str:
    """The name of a data set as it is; of a file its whole path, so that a run is resumed from anywhere."""
    return name if name in NAMES or Path(name).suffix.lower() not in (".csv", ".npz") else str(Path(name).absolute())


def data_folder(name: str, given: str | None) -> str | None:
    """Where Fashion-MNIST is, as a whole path; None for where Debian's package puts it."""
    found = given or (os.environ.get(DIRECTORY) if name == "fashion-mnist" else None)
    return str(Path(found).absolute()) if found else None


def check_new(command: str, name: str | None, anyway: bool, given: set[str]) -> None:
    """What a new run or sweep is asked for names data, and its options play a part for these.

    Args:
      command: train or sweep.
      name: of the data.
      anyway: whether --anyway stands there.
      given: what stands on the command line.

    Raises:
      ValueError: where it does not.
    """
    if name is None:
        raise ValueError(f"which data? nnjax {command} digits, fashion-mnist, or a .csv or .npz file")
    if anyway:
        raise ValueError("--anyway belongs to --resume")
    if "data_dir" in given and name != "fashion-mnist":
        raise ValueError(f"--data-dir is for fashion-mnist, and plays no part for {name}; leave it out")
    for option in ("target", "task", "test_share"):
        if option in given and name in NAMES:
            has = "its own test part" if option == "test_share" else "its labels as classes"
            raise ValueError(f"--{option.replace('_', '-')} is for files, and {name} has {has}; leave it out")


def prepare(config: Config, make: Callable[..., Run] = make_run) -> Prepared:
    """Load the data, hold out the validation, say what there is, and make the run."""
    with _split_by("--test-share"):
        dataset = data.load(
            config.data,
            data_dir=config.data_dir,
            target=config.target,
            task=config.task,
            test_share=config.test_share,
            seed=config.seed,
        )
    training, rows, held_out = _hold_out(dataset, config.validation, config.seed)
    table = dataset.table
    n, features = training.x.shape
    say(
        f"{table.task} ({escape(dataset.why)}): {n:,} rows to train on, "
        f"{0 if held_out is None else len(held_out.x):,} for validation, {len(dataset.test.x):,} for the test, "
        f"{features} features"
    )
    return Prepared(dataset, training, rows, held_out, make(config, table.task, len(table.classes) or 1, n))


def of_what(name: str) -> str:
    """What the rows of `Prepared.rows` are rows of."""
    if name in NAMES:
        return f"the training part of {name} (from 0)"
    header = ", header not counted" if Path(name).suffix.lower() == ".csv" else ""
    return f"{Path(name).name} (from 0{header})"


def _hold_out(dataset: Dataset, share: float, seed: int) -> tuple[Data, np.ndarray, Data | None]:
    """The training part without, and with a part to watch the training by; and the rows of the first."""
    y = np.asarray(dataset.train.y)
    rows = np.arange(len(y)) if dataset.rows is None else dataset.rows
    if share == 0:
        return dataset.train, rows, None
    classify = dataset.table.task == "classification"
    with _split_by("--validation", "; 0 for none"):
        first, second = data.split_rows(y, share, seed=seed, stratify=classify)
    x = np.asarray(dataset.train.x)
    return Data(x[first], y[first]), rows[first], Data(x[second], y[second])


@contextmanager
def _split_by(option: str, hint: str = "") -> Iterator[None]:
    """An error of `data.split_rows` names the option instead."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("split_rows: "):
            raise
        raise ValueError(f"{option}: {str(error).removeprefix('split_rows: ')}{hint}") from None
