"""Measure how much this machine gains from training many small networks together."""

from benchmarks.jobs.definitions import Ensemble, Training

NETWORK = Training((64, 64, 64, 10), rows=448, batch=32)

KIND = "ensemble"
UNIT = "step of a member"
JOBS = {f"{n} × 64-64-64-10, shared data": Ensemble(NETWORK, n) for n in (1, 8, 64, 512)}
JOBS |= {"4096 × 64-64-64-10, shared data": Ensemble(NETWORK._replace(rows=128), 4096)}  # few steps per call
JOBS |= {"64 × 64-64-64-10, own data": Ensemble(NETWORK, 64, own_data=True)}
QUICK = ("64 × 64-64-64-10, shared data",)
THOROUGH = ("8 × 64-64-64-10, shared data", "64 × 64-64-64-10, shared data")
ROUNDS = {"512 × 64-64-64-10, shared data": 5, "4096 × 64-64-64-10, shared data": 5}
