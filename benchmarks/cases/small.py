"""Train a network so small that overhead can dominate: 64 inputs, as many as the digits, and one hidden layer."""

from benchmarks.jobs.definitions import Training

KIND = "training"
UNIT = "step"
JOBS = {"64-32-10, batch 32": Training((64, 32, 10), rows=1792, batch=32, epochs=4)}
QUICK = tuple(JOBS)
