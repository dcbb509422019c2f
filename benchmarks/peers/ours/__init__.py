"""nnjax, a file for each kind of work."""

from benchmarks.peers.ours.accuracy import accuracy
from benchmarks.peers.ours.comparison import comparison
from benchmarks.peers.ours.depth import depth
from benchmarks.peers.ours.dispatch import dispatch
from benchmarks.peers.ours.ensemble import conv_ensemble, ensemble, sweep
from benchmarks.peers.ours.optimizer import optimizer
from benchmarks.peers.ours.process import start
from benchmarks.peers.ours.shuffle import shuffle
from benchmarks.peers.ours.training import training

__all__ = [
    "FORMS",
    "NAME",
    "NEEDS",
    "accuracy",
    "comparison",
    "conv_ensemble",
    "depth",
    "dispatch",
    "ensemble",
    "optimizer",
    "shuffle",
    "start",
    "sweep",
    "training",
]

NAME = "ours"
NEEDS = ("nnjax",)
FORMS = {
    "training": ("naive", "fast"),
    "ensemble": ("vmap", "map", "vmap on all cores", "map on all cores"),
    "conv_ensemble": ("vmap", "map", "vmap on all cores", "map on all cores"),
    "sweep": ("vmap", "map", "vmap on all cores", "map on all cores"),
    "depth": ("repeat", "remat", "unrolled"),
    "optimizer": ("scan", "calls"),
    "shuffle": ("fast",),
    "start": ("process",),
    "comparison": ("compare",),
    "dispatch": ("sgd",),
    "accuracy": ("map", "vmap"),
}
