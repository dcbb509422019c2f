"""Train many convolutional networks at once: LeNet on images of 28 × 28 pixels."""

from benchmarks.jobs.definitions import Ensemble, Training
from benchmarks.jobs.inputs import FEATURES

NETWORK = Training((FEATURES, 120, 84, 10), rows=64, batch=32, images=True)

KIND = "conv_ensemble"
UNIT = "step of a member"
JOBS = {f"{n} × LeNet": Ensemble(NETWORK, n) for n in (1, 8)}
JOBS |= {"64 × LeNet": Ensemble(NETWORK._replace(rows=32), 64)}  # one step per call; slow peers take seconds for it
QUICK = ()
ROUNDS = {"64 × LeNet": 5}
