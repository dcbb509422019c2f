"""Residual networks of 10 to 1000 blocks: what depth costs when it is compiled, and when it runs."""

from benchmarks.jobs.definitions import Deepening

KIND = "depth"
UNIT = "step"
JOBS = {f"{n} blocks": Deepening(n) for n in (10, 50, 250, 1000)}
QUICK = ()
