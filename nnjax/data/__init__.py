"""Load data sets from files and other libraries, in memory or batch by batch, and shuffle them into batches."""

from nnjax.data._batches import batches
from nnjax.data._class_balanced import class_balanced
from nnjax.data._examples import Examples, as_examples, digest, n_bytes, n_rows, sample, take_rows
from nnjax.data._labels import check_labels
from nnjax.data._load import load
from nnjax.data._load_table import Dataset
from nnjax.data._npy import open_npy
from nnjax.data._problems import TableError
from nnjax.data._records import records
from nnjax.data._shuffle import batch_indices
from nnjax.data._source import Source, source
from nnjax.data._split import SplitError, split_rows
from nnjax.data._validate import as_data, validate
from nnjax.types import Data

__all__ = [
    "Data",
    "Dataset",
    "Examples",
    "Source",
    "SplitError",
    "TableError",
    "as_data",
    "as_examples",
    "batch_indices",
    "batches",
    "check_labels",
    "class_balanced",
    "digest",
    "load",
    "n_bytes",
    "n_rows",
    "open_npy",
    "records",
    "sample",
    "source",
    "split_rows",
    "take_rows",
    "validate",
]
