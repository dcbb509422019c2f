"""Data: what can be loaded by name or from a file, or read as it is needed, and the order in which a run sees it."""

from nnjax.data._examples import (
    Examples,
    as_examples,
    check_labels,
    digest,
    n_bytes,
    n_rows,
    sample,
    take_rows,
)
from nnjax.data._load import Dataset, load
from nnjax.data._npy import open_npy
from nnjax.data._records import records
from nnjax.data._shuffle import batch_indices
from nnjax.data._source import Source, source
from nnjax.data._split import split_rows
from nnjax.data._validate import as_data, validate
from nnjax.data._validate import check_label_range as check_labels_in_range
from nnjax.types import Data

examples = as_examples

__all__ = [
    "Data",
    "Dataset",
    "Examples",
    "Source",
    "as_data",
    "as_examples",
    "batch_indices",
    "check_labels",
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
