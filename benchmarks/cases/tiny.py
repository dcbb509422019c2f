"""Run SimpleChains' benchmark: full-batch training of a network with 756 parameters, which take 3 kB."""

from benchmarks.jobs.definitions import Training

KIND = "training"
UNIT = "step"
JOBS = {
    "4-32-16-4 tanh, 10 000 rows": Training((4, 32, 16, 4), 10_000, None, "tanh", "squared_error", epochs=20),
}
QUICK = ()
THOROUGH = ()
