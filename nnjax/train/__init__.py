"""Training: the run as pure functions, and the host's loop that drives it."""

from nnjax.train.compare import Comparison, compare
from nnjax.train.engine.host_loop import Seconds
from nnjax.train.engine.job import Result, epoch_ends
from nnjax.train.fit import fit
from nnjax.train.folds import Folds, Rows, bootstrap, k_fold, leave_one_out
from nnjax.train.plan import Plan, plan
from nnjax.train.replay import Replay, replay
from nnjax.train.run import Run
from nnjax.train.sweep import Sweep, grid, random_search, sweep

__all__ = [
    "Comparison",
    "Folds",
    "Plan",
    "Replay",
    "Result",
    "Rows",
    "Run",
    "Seconds",
    "Sweep",
    "bootstrap",
    "compare",
    "epoch_ends",
    "fit",
    "grid",
    "k_fold",
    "leave_one_out",
    "plan",
    "random_search",
    "replay",
    "sweep",
]
