"""Data: what can be loaded by name or from a file, or read as it is needed, and the order in which a run sees it."""

from nnjax.data.load import Dataset, load
from nnjax.data.npy import open_npy
from nnjax.data.records import records
from nnjax.data.shuffle import batch_indices
from nnjax.data.source import Source, examples, source
from nnjax.data.split import SplitError, split_rows
from nnjax.data.validate import as_data, check_labels_in_range, validate
from nnjax.types import Data

__all__ = [
    "Data",
    "Dataset",
    "Source",
    "SplitError",
    "as_data",
    "batch_indices",
    "check_labels_in_range",
    "examples",
    "load",
    "open_npy",
    "records",
    "source",
    "split_rows",
    "validate",
]
