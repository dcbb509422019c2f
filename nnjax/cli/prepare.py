"""Load the data, split them into training, validation and test rows, and create the run."""

import csv
import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.markup import escape

from nnjax import checks, data, metrics
from nnjax.cli.config import Config, fit_batch, make_run, with_defaults
from nnjax.cli.console import option_name, quote, say
from nnjax.data import Data, Dataset, SplitError, TableError
from nnjax.data._csv import split_names
from nnjax.data._idx import DIRECTORY
from nnjax.data._load import NAMES, load_with
from nnjax.data._load_table import TableOptions
from nnjax.data._problems import Remedy, describe
from nnjax.data._read_table import SUFFIXES, is_table_file
from nnjax.data.table import Table, Task
from nnjax.storage.paths import as_path
from nnjax.train.run import Run

BY_OPTION: dict[Remedy, str] = {
    "missing": "--missing median, mean or category fills missing values, --missing drop omits the rows that have any",
    "target": "--missing drop, or any other rule, omits the rows without a target",
    "words": "--categorical {columns} keeps words such as NA as categories",
    "categorical": "--categorical {columns} keeps the 100 most frequent strings",
    "na": "--na {words} declares strings that mark missing values",
    "drop": "--drop {columns} omits columns",
}


class Prepared(NamedTuple):
    """The training, validation and test data, and the run."""

    dataset: Dataset
    training: Data
    rows: np.ndarray  # training rows: line numbers in a CSV file; otherwise indices in the file or in `Dataset.train`
    held_out: Data | None  # validation data, if any
    run: Run
    config: Config  # the settings with the defaults of the task


def absolute_path(name: str) -> str:
    """Make the path of a table file absolute, because a run may be resumed from any folder; keep other names."""
    return str(as_path(name).absolute()) if name not in NAMES and is_table_file(name) else name


def fashion_mnist_folder(name: str, data_dir: str | None) -> str | None:
    """Return the absolute path of the folder that contains Fashion-MNIST, or None for the default folder."""
    folder = data_dir or (os.environ.get(DIRECTORY) if name == "fashion-mnist" else None)
    return str(as_path(folder).absolute()) if folder else None


def check_data_options(command: str, name: str | None, option_names: set[str], *, anyway: bool) -> None:
    """Check that a new run, sweep or search names its data, and that the options apply to these data.

    Args:
      command: name of the command, "train", "sweep" or "search".
      name: the data set or file; None if it is missing.
      option_names: names of the settings that were written on the command line.
      anyway: True if --anyway was given.

    Raises:
      ValueError: if the name is missing, or if an option does not apply.
    """
    if name is None:
        raise ValueError(f"no data: nnjax {command} needs digits, fashion-mnist, or a file such as table.csv")
    if anyway:
        raise ValueError("--anyway applies only with --resume")
    if "data_dir" in option_names and name != "fashion-mnist":
        raise ValueError(f"--data-dir applies only to fashion-mnist, not to {name}; omit it")
    if name not in NAMES and not is_table_file(name) and not as_path(name).is_file():
        try:
            checks.one_of(f"nnjax {command}", "data set", name, NAMES)
        except ValueError as error:
            raise ValueError(f"{error}; the name of a file must end in {', '.join(SUFFIXES)}") from None
    own = {
        "target": "labels as its target", "task": "labels as its target", "test_share": "its own test part",
        "categorical": "no categories", "drop": "no columns", "missing": "no missing values", "na": "no missing values",
        "sep": "no separator", "decimal": "no decimal separator",
    }  # fmt: skip
    for setting, reason in own.items():
        if setting in option_names and name in NAMES:
            raise ValueError(f"{option_name(setting)} applies only to files; {name} has {reason}; omit it")


def prepare(config: Config, repeated: Table | None = None) -> Prepared:
    """Load the data, hold out the validation data, print the sizes, and create the run.

    Args:
      config: the settings.
      repeated: the encoding of a run to repeat; None means a new run. Columns that were read as strings are read as
        strings again, and the settings get no defaults.

    Raises:
      FileNotFoundError, ValueError: if the data cannot be read, or a split would leave a part empty.
    """
    texts = [] if repeated is None else [column.name for column in repeated.columns if column.kind == "text"]
    if repeated is not None and repeated.task == "classification" and repeated.target_kind == "text":
        texts.append(repeated.target)
    is_named_set = config.data in NAMES
    options = TableOptions(
        target=config.target, task=config.task, categorical=split_names(config.categorical),
        drop=split_names(config.drop), missing=config.missing, na=split_names(config.na),
        separator=separator_of(config.sep), decimal=config.decimal,
        test_share=config.test_share, seed=config.seed, kinds={} if is_named_set else dict.fromkeys(texts, "text"),
    )  # fmt: skip
    try:
        dataset = load_with(config.data, config.data_dir, options)
    except SplitError as error:
        raise ValueError(f"--test-share {error.share:g} of {error.rows} rows leaves one part empty") from None
    except TableError as error:
        place = f"{Path(config.data).name}: " if len(error.problems) == 1 else ""
        raise ValueError(place + describe(error.problems, BY_OPTION, _join_names)) from None
    training, rows, held_out = _hold_out(dataset, config.validation, config.seed)
    table = dataset.table
    weights: Any = _class_weights(training.y, table, config.class_weights)
    training = training._replace(weights=weights)
    n, features = training.x.shape
    say(
        f"{table.task} ({escape(dataset.why)}): {n:,} rows for training, "
        f"{0 if held_out is None else len(held_out.x):,} for validation, {len(dataset.test.x):,} for the test, "
        f"{features} {'feature' if features == 1 else 'features'}"
    )
    if config.task is None and table.target_kind == "number" and len(table.classes) > 2:
        say(escape(f"the integers in {table.target!r} count as classes; --task regression predicts numbers"))
    for note in dataset.notes:
        say(escape(note))
    if repeated is None:
        config = with_defaults(fit_batch(config, n), dataset.table.task, n, features)
    run = with_defined_scores(make_run(config, table.task, table.outputs, n), held_out, table.task)
    if run.metrics == (metrics.rmse,):
        say("the target is constant in the validation rows, so validation R² is undefined")
    return Prepared(dataset, training, rows, held_out, run, config)


def with_defined_scores(run: Run, held_out: Data | None, task: Task) -> Run:
    """Remove R² from the metrics if a target is constant in the validation rows, as it always is in a single row."""
    if task != "regression" or held_out is None or (np.ptp(np.asarray(held_out.y), axis=0) > 0).all():
        return run
    return replace(run, metrics=(metrics.rmse,))


def _class_weights(labels: Any, table: Table, kind: str) -> np.ndarray | None:
    """Return weights of the training rows, inversely proportional to their class frequencies, or None if equal."""
    if kind == "none":
        return None
    if table.task == "regression":
        raise ValueError("--class-weights balanced applies only to classification; omit it")
    counts = np.bincount(np.asarray(labels), minlength=len(table.classes))
    return (len(labels) / (len(counts) * np.maximum(counts, 1)))[np.asarray(labels)].astype(np.float32)


def describe_rows(name: str) -> str:
    """Describe the file or data set and its row numbering, for messages about `Prepared.rows`."""
    if name in NAMES:
        return f"the training part of {name} (from 0)"
    how = "from 0" if name.lower().endswith((".npz", ".parquet")) else "numbered by the lines of the file"
    return f"{Path(name).name} ({how})"


def _join_names(names: list[str]) -> str:
    """Join names into one word of a shell command, which `split_names` can split."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return quote(line.getvalue())


def separator_of(name: str | None) -> str | None:
    """Parse the value of --sep; None means that the separator is detected.

    Raises:
      ValueError: if the separator is not one character.
    """
    separator = {"tab": "\t", "\\t": "\t", "space": " "}.get(name or "", name)
    if separator is not None and len(separator) != 1:
        raise ValueError(f"--sep must be one character, tab or space, got {separator!r}")
    return separator


def _hold_out(dataset: Dataset, share: float, seed: int) -> tuple[Data, np.ndarray, Data | None]:
    """Return the training data, their row numbers (see `Prepared`), and the validation data, if any."""
    y = np.asarray(dataset.train.y)
    numbers = dataset.rows if dataset.lines is None else dataset.lines
    rows = np.arange(len(y)) if numbers is None else numbers
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
