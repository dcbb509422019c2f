"""Load a data set by its name or from a file."""

import warnings
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.data._idx import read_fashion_mnist
from nnjax.data._split import split_rows
from nnjax.data._suspicious import index_column, warnings_about
from nnjax.data._transfers import allow_transfers
from nnjax.data.table import (
    Column,
    Table,
    Task,
    check_column,
    choose_task,
    column_texts,
    fit_table,
    list_names,
    read_table,
)
from nnjax.storage.paths import as_path
from nnjax.types import Data

NAMES = ("digits", "fashion-mnist")
CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


class Dataset(NamedTuple):
    """A training part and a test part, and the table that encodes their rows as numbers."""

    train: Data  # x (rows, features) float32; y (rows,) int32, or (rows, 1) float32 for regression
    test: Data
    table: Table  # task, names of classes and columns, standardisation
    why: str = ""  # the reason why this task was chosen, in words
    rows: np.ndarray | None = (
        None  # the training rows in the file, counted from 0 without the header; None for a named set
    )


@allow_transfers
def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    target: str | None = None,
    task: Task | None = None,
    categorical: Sequence[str] = (),
    drop: Sequence[str] = (),
    test_share: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Load a data set by its name, or from a CSV or NPZ file.

    Args:
      name: "digits" (1 797 images of 8 × 8, included in the package), "fashion-mnist" (70 000 images of 28 × 28, from
        IDX files), or the path of a CSV file with a header or of an NPZ file with arrays `x` and `y`.
      data_dir: the folder of Fashion-MNIST's IDX files; None to look in `$NNJAX_DATA_DIR` and in the folder of
        Debian's package `dataset-fashion-mnist`.
      target: the column of a CSV file to predict; None means "y" for an NPZ file. Only for files.
      task: "classification" or "regression"; None to choose by the values of the target. Only for files.
      categorical: columns of a file that hold categories even if they look like numbers or missing values, such as the
        codes 01 and 1, or a country NA.
      drop: columns of a file to leave out, such as a row number.
      test_share: the share of a file's rows to hold out for the test, stratified by class. The named sets have a fixed
        test part.
      seed: random seed of that split.

    Returns:
      `Dataset(train, test, table, why, rows)`. Images are flat, with pixels in [0, 1]. Features of a table are
      standardised with the mean and standard deviation of the training part.

    Raises:
      FileNotFoundError: if a file is missing; the message names it, and says how to get it.
      ValueError: for unknown names and columns, missing values, and values that cannot be encoded. Rows in messages
        are counted from 0.

    Warns:
      UserWarning: for a column of a CSV file that looks like a row number, for values of it more than 10 interquartile
        ranges outside of the quartiles, and for an unnamed column that numbers the rows, which is left out.

    >>> digits = data.load("digits")
    >>> digits.train.x.shape, digits.test.x.shape
    ((1438, 64), (359, 64))
    """
    _check_arguments(name, data_dir, test_share, seed)
    _check_columns(name, target, task, categorical, drop)
    if name == "digits":
        with resources.files("nnjax.data").joinpath("digits.npz").open("rb") as opened, np.load(opened) as file:
            x, y, test = file["x"], file["y"], file["test"]
        return _images((x[~test], y[~test]), (x[test], y[test]), 16, [str(i) for i in range(10)])
    if name == "fashion-mnist":
        train_x, train_y, test_x, test_y = read_fashion_mnist(data_dir)
        return _images((train_x, train_y), (test_x, test_y), 255, list(CLOTHES))
    path = as_path(name)
    if path.suffix.lower() not in (".csv", ".npz"):
        checks.one_of("load", "data set", name, NAMES)
    frame = _without(path, read_table(path, categorical=categorical), drop, target)
    if path.suffix.lower() == ".npz" and target is None:
        target = "y"
        if target not in frame:
            raise ValueError(f"{path}: an array named y is missing, with one entry per row of x")
    if target is None:
        names = list_names(frame)
        raise ValueError(f"{path}: name the target, the column to predict; the columns are {names}")
    check_column(path, "target column", target, frame)
    n = len(frame[target])
    if n < 5:
        raise ValueError(f"{path}: {n} rows are too few to train and to test; at least 5 are needed")
    if task is not None:
        checks.one_of("load", "task", task, ("classification", "regression"))
    if task == "regression" and target in categorical:
        raise ValueError(f"load: the target {target!r} of a regression cannot be categorical; omit one of the two")
    with checks.located(f"in {path}"):
        chosen, why = choose_task(frame, target, task)
        classify = chosen == "classification"
        rows = split_rows(
            column_texts(frame, target) if classify else np.zeros(n), test_share, seed=seed, stratify=classify
        )
        table = fit_table(frame, target, chosen, rows[0], categorical=categorical)
        x, y = table.features(frame), table.targets(frame)
        for warning in warnings_about(frame, table) if path.suffix.lower() == ".csv" else ():
            warnings.warn(f"{path.name}: {warning}", stacklevel=3)
    train, test = (Data(jnp.asarray(x[part]), jnp.asarray(y[part])) for part in rows)
    return Dataset(train, test, table, why, rows[0])


def _check_columns(name: str, target: str | None, task: Any, categorical: Any, drop: Any) -> None:
    if name in NAMES and (target is not None or task is not None or categorical or drop):
        raise ValueError(f"load: target, task, categorical and drop apply only to files; omit them for {name}")
    for argument, columns in (("categorical", categorical), ("drop", drop)):
        if isinstance(columns, str):
            raise TypeError(f"load: {argument} must be a list of columns, got {columns!r}; write [{columns!r}]")


def _without(
    path: Path, frame: dict[str, np.ndarray], drop: Sequence[str], target: str | None
) -> dict[str, np.ndarray]:
    """Return the columns without those to drop, and without an unnamed column that numbers the rows."""
    for name in drop:
        check_column(path, "column to drop", name, frame)
        if name == target:
            raise ValueError(f"load: the target {name!r} cannot be dropped")
    index = index_column(frame)
    if index is not None and index != target and index not in drop:
        warnings.warn(
            f"{path.name}: the first column has no name and numbers the rows, so it is left out", stacklevel=4
        )
        drop = [*drop, index]
    return {name: values for name, values in frame.items() if name not in drop}


def _check_arguments(name: Any, data_dir: Any, test_share: Any, seed: Any) -> None:
    if not isinstance(name, (str, Path)):
        raise TypeError(f"load: name must be the name of a data set or the path of a file, got {name!r:.80}")
    if data_dir is not None and not isinstance(data_dir, (str, Path)):
        raise TypeError(f"load: data_dir must be a folder, got {data_dir!r:.80}")
    checks.in_range("load", "test_share", test_share, "(0, 1)")
    checks.positive_int("load", "seed", seed, 0, bits=64)


def _images(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], top: int, classes: list[str]
) -> Dataset:
    """Return a data set of flat images with pixels in [0, 1], from pixels in 0 … top."""
    features = int(np.prod(train[0].shape[1:]))
    columns = [Column(f"x{i}") for i in range(features)]
    table = Table("classification", "y", classes, columns=columns, mean=[0.0] * features, std=[float(top)] * features)
    parts = [
        Data(jnp.asarray(x.reshape(len(x), -1).astype(np.float32) / np.float32(top)), jnp.asarray(y.astype(np.int32)))
        for x, y in (train, test)
    ]
    return Dataset(parts[0], parts[1], table, f"{len(classes)} classes")
