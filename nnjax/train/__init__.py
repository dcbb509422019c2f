"""Training: the run as pure functions, and the host's loop that drives it."""

from nnjax.train.fit import Result, Seconds, epoch_ends, fit
from nnjax.train.run import Run

__all__ = ["Result", "Run", "Seconds", "epoch_ends", "fit"]
