"""Train a grid of AdamW hyper-parameters at once: 16 learning rates × 16 weight decays."""

from benchmarks.jobs.definitions import Ensemble, Training

RATES = tuple(10 ** (-4 + 3 * i / 15) for i in range(16))
DECAYS = tuple(10 ** (-6 + 5 * i / 15) for i in range(16))
PAIRS = tuple((rate, decay) for rate in RATES for decay in DECAYS)

KIND = "sweep"
UNIT = "step of a member"
JOBS = {"256 pairs, 64-32-10": Ensemble(Training((64, 32, 10), rows=448, batch=32), len(PAIRS), pairs=PAIRS)}
QUICK = ()
