"""Time a fresh process from start to exit."""

from benchmarks.jobs.definitions import FreshProcess

KIND = "fresh_process"
UNIT = "start"
JOBS = {"import": FreshProcess("import"), "train digits": FreshProcess("train")}
QUICK = ()
ROUNDS = {"train digits": 5}
