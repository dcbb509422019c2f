"""Run the jobs with PyTorch in eager mode, one file for each kind of work."""

from benchmarks.peers.torch_eager.deep_network import deep_network
from benchmarks.peers.torch_eager.dispatch import dispatch
from benchmarks.peers.torch_eager.ensemble import conv_ensemble, ensemble
from benchmarks.peers.torch_eager.shuffle import shuffle
from benchmarks.peers.torch_eager.time_to_accuracy import time_to_accuracy
from benchmarks.peers.torch_eager.training import training
from benchmarks.peers.torch_eager.updates import updates

__all__ = [
    "FORMS",
    "NAME",
    "NEEDS",
    "conv_ensemble",
    "deep_network",
    "dispatch",
    "ensemble",
    "shuffle",
    "time_to_accuracy",
    "training",
    "updates",
]

NAME = "torch eager"
NEEDS = ("torch",)
FORMS = {
    "training": ("naive", "fast"),
    "ensemble": ("loop",),
    "conv_ensemble": ("loop",),
    "deep_network": ("loop",),
    "updates": ("foreach", "fused"),
    "shuffle": ("loader", "randperm"),
    "dispatch": ("foreach",),
    "time_to_accuracy": ("fast",),
}
