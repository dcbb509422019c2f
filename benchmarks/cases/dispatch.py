"""Measure the overhead of a call for different numbers of arrays that it takes and returns."""

from benchmarks.jobs.definitions import Dispatch

KIND = "dispatch"
UNIT = "call"
JOBS = {f"{n} {'leaf' if n == 1 else 'leaves'}": Dispatch(n) for n in (1, 8, 32, 128)}
QUICK = ("32 leaves",)
