"""Data: what can be loaded by name or from a file, and the order in which a run sees it."""

from nnjax.data.load import Dataset, load
from nnjax.data.shuffle import batch_indices
from nnjax.data.split import split_rows
from nnjax.data.validate import as_data, check_labels_in_range, validate
from nnjax.types import Data

__all__ = ["Data", "Dataset", "as_data", "batch_indices", "check_labels_in_range", "load", "split_rows", "validate"]
