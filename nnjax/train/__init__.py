"""Training: a run as pure functions, and the loop on the host that drives it."""

from nnjax.train.compare import Comparison, PairedDifference, compare, paired_difference
from nnjax.train.engine.errors import DivergedWarning, InterruptedRun, RunMismatchError
from nnjax.train.engine.host_loop import Seconds
from nnjax.train.engine.options import PartialRun
from nnjax.train.fit import Result, epoch_ends, fit
from nnjax.train.folds import Folds, Rows, bootstrap, k_fold, leave_one_out
from nnjax.train.plan import Plan, plan
from nnjax.train.replay import Replay, replay
from nnjax.train.run import Run
from nnjax.train.sweep import Sweep, grid, random_search, sweep

__all__ = [
    "Comparison",
    "DivergedWarning",
    "Folds",
    "InterruptedRun",
    "PairedDifference",
    "PartialRun",
    "Plan",
    "Replay",
    "Result",
    "Rows",
    "Run",
    "RunMismatchError",
    "Seconds",
    "Sweep",
    "bootstrap",
    "compare",
    "epoch_ends",
    "fit",
    "grid",
    "k_fold",
    "leave_one_out",
    "paired_difference",
    "plan",
    "random_search",
    "replay",
    "sweep",
]
