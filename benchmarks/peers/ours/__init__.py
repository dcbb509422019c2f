"""Run the jobs with nnjax, one file for each kind of work."""

from benchmarks.peers.ours.deep_network import deep_network
from benchmarks.peers.ours.dispatch import dispatch
from benchmarks.peers.ours.ensemble import conv_ensemble, ensemble, sweep
from benchmarks.peers.ours.fresh_process import fresh_process
from benchmarks.peers.ours.optimizer_comparison import optimizer_comparison
from benchmarks.peers.ours.setting_search import setting_search
from benchmarks.peers.ours.shuffle import shuffle
from benchmarks.peers.ours.time_to_accuracy import time_to_accuracy
from benchmarks.peers.ours.training import training
from benchmarks.peers.ours.updates import updates

__all__ = [
    "APART",
    "FORMS",
    "NAME",
    "NEEDS",
    "conv_ensemble",
    "deep_network",
    "dispatch",
    "ensemble",
    "fresh_process",
    "optimizer_comparison",
    "setting_search",
    "shuffle",
    "sweep",
    "time_to_accuracy",
    "training",
    "updates",
]

NAME = "ours"
NEEDS = ("nnjax",)
FORMS = {
    "training": ("naive", "fast"),
    "ensemble": ("vmap", "map", "vmap on all cores", "map on all cores"),
    "conv_ensemble": ("vmap", "map", "vmap on all cores", "map on all cores"),
    "sweep": ("vmap", "map", "vmap on all cores", "map on all cores"),
    "deep_network": ("repeat", "remat", "unrolled"),
    "updates": ("scan", "calls"),
    "shuffle": ("fast",),
    "fresh_process": ("process",),
    "optimizer_comparison": ("compare",),
    "dispatch": ("sgd",),
    "time_to_accuracy": ("map", "vmap"),
    "setting_search": ("halving on all cores", "tpe on all cores", "halving"),
}
APART = ("vmap on all cores", "map on all cores", "halving on all cores", "tpe on all cores")
