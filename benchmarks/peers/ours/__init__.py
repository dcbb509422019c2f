"""nnjax, a file for each kind of work."""

from benchmarks.peers.ours.ensemble import ensemble
from benchmarks.peers.ours.optimizer import optimizer
from benchmarks.peers.ours.shuffle import shuffle
from benchmarks.peers.ours.training import training

__all__ = ["FORMS", "NAME", "NEEDS", "ensemble", "optimizer", "shuffle", "training"]

NAME = "ours"
NEEDS = ("nnjax",)
FORMS = {
    "training": ("naive", "fast"),
    "ensemble": ("vmap", "map", "vmap on all cores", "map on all cores"),
    "optimizer": ("scan", "calls"),
    "shuffle": ("fast",),
}
