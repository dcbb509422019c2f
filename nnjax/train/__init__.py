"""Training: the run as pure functions, and the host's loop that drives it."""

from nnjax.train.drive import Seconds
from nnjax.train.fit import fit
from nnjax.train.folds import Folds, Rows, bootstrap, k_fold, leave_one_out
from nnjax.train.job import Result, epoch_ends
from nnjax.train.run import Run

__all__ = [
    "Folds",
    "Result",
    "Rows",
    "Run",
    "Seconds",
    "bootstrap",
    "epoch_ends",
    "fit",
    "k_fold",
    "leave_one_out",
]
