"""The update alone: a million parameters in few large arrays and in many small ones."""

from benchmarks.work import Optimizing

KIND = "optimizer"
UNIT = "update"
JOBS = {f"{rule}, {n} leaves": Optimizing(rule, n) for rule in ("sgd", "adam", "adamw", "lion") for n in (4, 32, 128)}
JOBS |= {"adam, 1024 leaves": Optimizing("adam", 1024)}  # of one rule, for it takes a minute to compile
QUICK = ("adam, 32 leaves",)
THOROUGH = tuple(name for name in JOBS if name.endswith(", 32 leaves"))
ROUNDS = {"adam, 1024 leaves": 5}
