"""The data that the settings name, split into training, validation and test, and the run that trains on them."""

import csv
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.markup import escape

from nnjax import data
from nnjax.cli.config import Config, make_run
from nnjax.cli.console import option_name, say
from nnjax.data import Data, Dataset, SplitError
from nnjax.data._idx import DIRECTORY
from nnjax.data._load import NAMES
from nnjax.data.table import Table
from nnjax.storage.paths import as_path
from nnjax.train.run import Run


class Prepared(NamedTuple):
    """The data in three parts, and the run."""

    dataset: Dataset
    training: Data
    rows: np.ndarray  # rows of the training data, counted in the file or in the training part of a named data set
    held_out: Data | None  # validation data
    run: Run


def absolute_path(name: str) -> str:
    """Return the absolute path of a file, so that a run can be resumed from any folder; other names stay unchanged."""
    return name if name in NAMES or Path(name).suffix.lower() not in (".csv", ".npz") else str(as_path(name).absolute())


def fashion_mnist_folder(name: str, data_dir: str | None) -> str | None:
    """Return the absolute path of the folder of Fashion-MNIST; None for the default folder."""
    folder = data_dir or (os.environ.get(DIRECTORY) if name == "fashion-mnist" else None)
    return str(as_path(folder).absolute()) if folder else None


def check_data_options(command: str, name: str | None, written: set[str], *, anyway: bool) -> None:
    """Check that a new run or sweep names its data, and that its options apply to them.

    Args:
      command: name of the command, "train" or "sweep".
      name: the name of the data, a data set or a file.
      written: names of the settings on the command line.
      anyway: True if --anyway was given.

    Raises:
      ValueError: if the name is missing or an option does not apply.
    """
    if name is None:
        raise ValueError(f"no data: nnjax {command} needs digits, fashion-mnist, or a .csv or .npz file")
    if anyway:
        raise ValueError("--anyway applies only with --resume")
    if "data_dir" in written and name != "fashion-mnist":
        raise ValueError(f"--data-dir applies only to fashion-mnist, not to {name}; omit it")
    for setting in ("target", "task", "categorical", "drop", "test_share"):
        if setting in written and name in NAMES:
            own = {"test_share": "its own test part", "categorical": "no categories", "drop": "no columns"}.get(
                setting, "labels as its target"
            )
            raise ValueError(f"{option_name(setting)} applies only to files; {name} has {own}; omit it")


def prepare(config: Config) -> Prepared:
    """Load the data, hold out the validation data, print the sizes and make the run.

    Raises:
      FileNotFoundError, ValueError: if the data cannot be read, or a part of a split would be empty.
    """
    try:
        dataset = data.load(
            config.data,
            data_dir=config.data_dir,
            target=config.target,
            task=config.task,
            categorical=_split_names(config.categorical),
            drop=_split_names(config.drop),
            test_share=config.test_share,
            seed=config.seed,
        )
    except SplitError as error:
        raise ValueError(f"--test-share {error.share:g} of {error.rows} rows leaves one part empty") from None
    training, rows, held_out = _hold_out(dataset, config.validation, config.seed)
    table = dataset.table
    weights: Any = _class_weights(training.y, table, config.class_weights)
    training = training._replace(weights=weights)
    n, features = training.x.shape
    say(
        f"{table.task} ({escape(dataset.why)}): {n:,} rows for training, "
        f"{0 if held_out is None else len(held_out.x):,} for validation, {len(dataset.test.x):,} for the test, "
        f"{features} features"
    )
    run = make_run(config, table.task, len(table.classes) or 1, n)
    return Prepared(dataset, training, rows, held_out, run)


def _class_weights(labels: Any, table: Table, kind: str) -> np.ndarray | None:
    """Return the weight of each training row, inverse to the frequency of its class; None for equal weights."""
    if kind == "none":
        return None
    if table.task == "regression":
        raise ValueError("--class-weights balanced applies only to classification; omit it")
    counts = np.bincount(np.asarray(labels), minlength=len(table.classes))
    return (len(labels) / (len(counts) * np.maximum(counts, 1)))[np.asarray(labels)].astype(np.float32)


def describe_rows(name: str) -> str:
    """Return a description of the rows that `Prepared.rows` numbers, for messages."""
    if name in NAMES:
        return f"the training part of {name} (from 0)"
    header = ", header not counted" if Path(name).suffix.lower() == ".csv" else ""
    return f"{Path(name).name} (from 0{header})"


def _split_names(names: str | None) -> list[str]:
    """Return the names in a line of CSV; names with commas are in quotes."""
    return [] if names is None else [name.strip() for name in next(csv.reader([names], skipinitialspace=True))]


def _hold_out(dataset: Dataset, share: float, seed: int) -> tuple[Data, np.ndarray, Data | None]:
    """Return the training data, their rows, and the validation data; None without validation."""
    y = np.asarray(dataset.train.y)
    rows = np.arange(len(y)) if dataset.rows is None else dataset.rows
    if share == 0:
        return dataset.train, rows, None
    try:
        training, held_out = data.split_rows(y, share, seed=seed, stratify=dataset.table.task == "classification")
    except SplitError as error:
        raise ValueError(
            f"--validation {error.share:g} of {error.rows} rows leaves one part empty; 0 turns validation off"
        ) from None
    x = np.asarray(dataset.train.x)
    return Data(x[training], y[training]), rows[training], Data(x[held_out], y[held_out])
