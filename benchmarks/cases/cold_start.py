"""From nothing: a process of its own, from its start to its end."""

from benchmarks.jobs.definitions import Starting

KIND = "start"
UNIT = "start"
JOBS = {"import": Starting("import"), "train digits": Starting("train")}
QUICK = ()
ROUNDS = {"train digits": 5}
