"""What a call costs before it computes anything, by the number of arrays that it takes and gives."""

from benchmarks.jobs.definitions import Dispatching

KIND = "dispatch"
UNIT = "call"
JOBS = {f"{n} {'leaf' if n == 1 else 'leaves'}": Dispatching(n) for n in (1, 8, 32, 128)}
QUICK = ("32 leaves",)
