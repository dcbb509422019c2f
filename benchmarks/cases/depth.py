"""Measure how the depth of residual networks, 10 to 1000 blocks, affects compile time and run time."""

from benchmarks.jobs.definitions import DeepNetwork

KIND = "deep_network"
UNIT = "step"
JOBS = {f"{n} blocks": DeepNetwork(n) for n in (10, 50, 250, 1000)}
QUICK = ()
