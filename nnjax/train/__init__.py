"""Define training runs as pure functions, and train, compare, sweep, search and replay them."""

from nnjax.train.compare import Comparison, PairedDifference, compare, paired_difference
from nnjax.train.engine.errors import DivergedWarning, InterruptedRun, RunMismatchError
from nnjax.train.engine.host_loop import Seconds
from nnjax.train.engine.make_job import epoch_ends
from nnjax.train.engine.options import PartialRun
from nnjax.train.engine.search.results import TrialNetwork
from nnjax.train.fit import fit
from nnjax.train.folds import Folds, Rows, bootstrap, k_fold, leave_one_out
from nnjax.train.load import SavedRun, load
from nnjax.train.objective import objective_of
from nnjax.train.plan import Plan, plan
from nnjax.train.replay import Replay, replay
from nnjax.train.replay_trial import TrialReplay, replay_trial
from nnjax.train.result import Result
from nnjax.train.run import Run
from nnjax.train.search import Search, search
from nnjax.train.space import Dimension, choice, log_uniform, structure, uniform
from nnjax.train.step_metrics import grad_norm, update_norm
from nnjax.train.sweep import Sweep, grid, random_search, sweep

__all__ = [
    "Comparison",
    "Dimension",
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
    "SavedRun",
    "Search",
    "Seconds",
    "Sweep",
    "TrialNetwork",
    "TrialReplay",
    "bootstrap",
    "choice",
    "compare",
    "epoch_ends",
    "fit",
    "grad_norm",
    "grid",
    "k_fold",
    "leave_one_out",
    "load",
    "log_uniform",
    "objective_of",
    "paired_difference",
    "plan",
    "random_search",
    "replay",
    "replay_trial",
    "search",
    "structure",
    "sweep",
    "uniform",
    "update_norm",
]
