"""Load a data set by name, from a file, or from a DataFrame."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nnjax import checks
from nnjax.data._idx import read_fashion_mnist
from nnjax.data._kinds import Column
from nnjax.data._load_table import Dataset, TableOptions, load_table
from nnjax.data._numbers import Decimal
from nnjax.data._read_table import SUFFIXES, is_table_file
from nnjax.data._transfers import allow_transfers
from nnjax.data.table import Missing, Table, Task
from nnjax.storage.paths import as_path
from nnjax.types import Data

NAMES = ("digits", "fashion-mnist")
CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


@allow_transfers
def load(
    name: Any,
    *,
    data_dir: str | Path | None = None,
    target: str | Sequence[str] | None = None,
    task: Task | None = None,
    categorical: Sequence[str] = (),
    drop: Sequence[str] = (),
    missing: Missing = "error",
    na: Sequence[str] = (),
    sep: str | None = None,
    decimal: Decimal | None = None,
    test_share: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Load a data set by name, from a file, or from a DataFrame.

    The kind of each column is decided once, from all its rows: numbers (including `4,082`, `$12,000` and, with a
    decimal comma, `3,5`), dates, or strings, which become categories with one input each.

    Args:
      name: "digits" (1 797 images of 8 × 8, included in the package) or "fashion-mnist" (70 000 images of 28 × 28, from
        IDX files); the path of a table with a header (.csv, .tsv, .csv.gz, .tsv.gz, or .parquet, which needs pandas);
        the path of an NPZ file with arrays `x` and `y`; a pandas or polars DataFrame; or a dict of arrays (rows,).
      data_dir: the folder of Fashion-MNIST's IDX files, or a folder with a subfolder `fashion-mnist` that contains
        them; None searches `$NNJAX_DATA_DIR` and the folder of Debian's package `dataset-fashion-mnist`.
      target: the column to predict, or several columns of numbers; None means "y" for an NPZ file. This and the
        following arguments apply only to tables.
      task: "classification" or "regression"; None infers it from the values of the target.
      categorical: columns of categories that may look like numbers, dates or missing values, such as the codes 01 and
        1, or the country NA. If a column has more than 100 distinct strings, the most frequent are kept.
      drop: columns to leave out, such as a row number.
      missing: treatment of missing values. "error" raises an error. "drop" leaves out their rows. "mean" and "median"
        replace missing numbers with that statistic of the training rows, and missing strings with the average of all
        categories. "category" makes missing strings a category and replaces missing numbers with the median. All three
        replace missing dates with the mean. Except with "error", rows without a target are left out.
      na: strings of a CSV file that mark missing values, in addition to empty fields and words such as NA, N/A, NULL,
        None and NaN.
      sep: the separator of a CSV file; None detects a comma, semicolon, tab, vertical bar or spaces.
      decimal: the decimal separator of a CSV file, "." or ","; None detects it.
      test_share: the share of a table's rows to hold out as test data, stratified by class. The named data sets have a
        fixed test part.
      seed: random seed of this split.

    Returns:
      `Dataset(train, test, table, why, rows, notes, lines)`. Images are flat, with pixels in [0, 1]. Features of a
      table and targets of a regression are standardised with the mean and standard deviation of the training part.

    Raises:
      FileNotFoundError: if a file is missing; the message names the file and explains how to get it.
      ModuleNotFoundError: if pandas or pyarrow, which Parquet files need, is not installed.
      TableError: a ValueError, if values are missing or columns cannot be encoded; the message lists all such columns.
      ValueError: if a name, column or option is invalid, if options of tables are passed for a named data set, or if a
        file is damaged. It is also raised if the table cannot be used, for example because of a constant target or too
        few rows.
      TypeError: if an argument has the wrong type.

    Warns:
      UserWarning: if an unnamed first column of row numbers is left out. For a CSV file, also if a column looks like a
        row number or an identifier, if numbers or dates are ambiguous, if most values of a text column are numbers, or
        if values are more than 10 interquartile ranges beyond the quartiles.

    >>> digits = data.load("digits")
    >>> digits.train.x.shape, digits.test.x.shape
    ((1438, 64), (359, 64))
    >>> frame = {"width": np.arange(50.0), "colour": ["red", "blue"] * 25, "price": np.arange(50.0) ** 2}
    >>> prices = data.load(frame, target="price")
    >>> prices.train.x.shape, prices.table.task
    ((40, 3), 'regression')
    """
    options = TableOptions(
        target=target, task=task, categorical=categorical, drop=drop, missing=missing, na=na, separator=sep,
        decimal=decimal, test_share=test_share, seed=seed,
    )  # fmt: skip
    return load_with(name, data_dir, options)


def load_with(name: Any, data_dir: str | Path | None, options: TableOptions) -> Dataset:
    """Load a data set like `load`, with the table options in one object."""
    if data_dir is not None and not isinstance(data_dir, (str, Path)):
        raise TypeError(f"load: data_dir must be a folder, got {data_dir!r:.80}")
    if not isinstance(name, (str, Path)):
        if not hasattr(name, "columns") and not hasattr(name, "keys"):
            raise TypeError(
                f"load: name must be the name of a data set, the path of a file or a DataFrame, got {name!r:.80}"
            )
        return load_table(name if hasattr(name, "keys") else {c: name[c] for c in name.columns}, options)
    if name in NAMES:
        _check_no_table_options(name, options)
    if name == "digits":
        with resources.files("nnjax.data").joinpath("digits.npz").open("rb") as opened, np.load(opened) as file:
            x, y, test = file["x"], file["y"], file["test"]
        return _images((x[~test], y[~test]), (x[test], y[test]), 16, [str(i) for i in range(10)])
    if name == "fashion-mnist":
        train_x, train_y, test_x, test_y = read_fashion_mnist(data_dir)
        return _images((train_x, train_y), (test_x, test_y), 255, list(CLOTHES))
    path = as_path(name)
    if not is_table_file(path.name):
        if path.is_file():
            raise ValueError(f"{path}: the name of a table must end in {', '.join(SUFFIXES)}; rename the file")
        checks.one_of("load", "data set", str(name), NAMES)
    return load_table(path, options)


def _check_no_table_options(name: Any, options: TableOptions) -> None:
    """Check that no table options were passed for a named data set, because it would ignore them."""
    names = ("target", "task", "categorical", "drop", "na", "separator", "decimal")
    if options.missing != "error" or any(getattr(options, option) for option in names):
        raise ValueError(
            "load: target, task, categorical, drop, missing, na, sep and decimal apply only to tables; omit them for "
            f"{name}"
        )


def _images(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], top: int, classes: list[str]
) -> Dataset:
    """Return a data set of flattened images with pixels scaled from 0 … top to [0, 1]."""
    features = int(np.prod(train[0].shape[1:]))
    columns = [Column(f"x{i}") for i in range(features)]
    table = Table("classification", "y", classes, columns=columns, mean=[0.0] * features, std=[float(top)] * features)
    put = jax.device_put  # unlike jnp.asarray, it does not compile a program for each shape
    parts = [
        Data(put(x.reshape(len(x), -1).astype(np.float32) / np.float32(top)), put(y.astype(np.int32)))
        for x, y in (train, test)
    ]
    return Dataset(parts[0], parts[1], table, f"{len(classes)} classes")
