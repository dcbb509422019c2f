"""Residual networks of 10 to 1000 blocks: how depth affects compilation and run time."""

from benchmarks.jobs.definitions import DeepNetwork

KIND = "deep_network"
UNIT = "step"
JOBS = {f"{n} blocks": DeepNetwork(n) for n in (10, 50, 250, 1000)}
QUICK = ()
