"""Many networks at once: of what use is a batch of small networks on this machine?"""

from benchmarks.work import Ensemble, Training

NETWORK = Training((64, 64, 64, 10), rows=448, batch=32)

KIND = "ensemble"
UNIT = "step of a member"
JOBS = {f"{n} × 64-64-64-10, shared data": Ensemble(NETWORK, n) for n in (1, 8, 64, 512)}
JOBS |= {"4096 × 64-64-64-10, shared data": Ensemble(NETWORK._replace(rows=128), 4096)}  # a call of few steps
JOBS |= {f"{n} × 64-64-64-10, own data": Ensemble(NETWORK, n, own=True) for n in (8, 64)}
QUICK = ("64 × 64-64-64-10, shared data",)
THOROUGH = tuple(name for name in JOBS if not name.startswith("4096"))
ROUNDS = {"4096 × 64-64-64-10, shared data": 5}
