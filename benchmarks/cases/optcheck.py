"""The wait for an answer: two optimizers are the same, or they differ, and in what."""

from benchmarks.jobs.definitions import Comparing

KIND = "comparison"
UNIT = "comparison"
JOBS = {"match": Comparing("match"), "diagnosis": Comparing("diagnosis")}
QUICK = ()
ROUNDS = {"match": 5, "diagnosis": 5}
