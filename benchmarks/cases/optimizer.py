"""Time only the optimizer's update of a million parameters in few large or many small arrays."""

from benchmarks.jobs.definitions import Updates

KIND = "updates"
UNIT = "update"
JOBS = {f"{rule}, {n} leaves": Updates(rule, n) for rule in ("sgd", "adam", "adamw", "lion") for n in (4, 32, 128)}
JOBS |= {f"{rule}, 1024 leaves": Updates(rule, 1024) for rule in ("adam", "sgd", "adamw", "lion")}
EXTRA = tuple(f"{rule}, 1024 leaves" for rule in ("sgd", "adamw", "lion"))  # each takes a minute to compile
QUICK = ("adam, 32 leaves",)
THOROUGH = tuple(name for name in JOBS if name.endswith((", 32 leaves", ", 1024 leaves")))
ROUNDS = dict.fromkeys((name for name in JOBS if name.endswith(", 1024 leaves")), 5)
