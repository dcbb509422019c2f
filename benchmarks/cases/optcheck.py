"""Time the comparison of two optimizers that are equal, and of two that differ in one formula."""

from benchmarks.jobs.definitions import OptimizerComparison

KIND = "optimizer_comparison"
UNIT = "comparison"
JOBS = {"match": OptimizerComparison("match"), "diagnosis": OptimizerComparison("diagnosis")}
QUICK = ()
ROUNDS = {"match": 5, "diagnosis": 5}
