"""Time to a target: each run with a seed of its own, until the accuracy is reached, or never."""

from benchmarks.jobs.definitions import Reaching

KIND = "accuracy"
UNIT = "run"
JOBS = {
    "digits to 98 %, 5 folds": Reaching("digits", 0.98, epochs=40, folds=5, hidden=(256,), batch=32, rate=3e-3),
    "Fashion-MNIST to 90 %": Reaching(
        "fashion-mnist", 0.9, epochs=24, folds=None, hidden=(512, 512), batch=128, rate=1e-3, decay=1e-2, dropout=0.3,
        cosine=True,
    ),
}  # fmt: skip
QUICK = ()
ROUNDS = dict.fromkeys(JOBS, 9)  # and the calls before them: 10 to 12 seeds
EXTRA = ("Fashion-MNIST to 90 %",)  # half a minute and more for each seed and peer
