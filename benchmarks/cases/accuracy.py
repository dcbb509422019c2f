"""Measure the time to a target accuracy. Each run has its own seed and ends when it reaches the target or fails."""

from benchmarks.jobs.definitions import TimeToAccuracy

KIND = "time_to_accuracy"
UNIT = "run"
JOBS = {
    "digits to 98 %, 5 folds": TimeToAccuracy("digits", 0.98, epochs=40, folds=5, hidden=(256,), batch=32, rate=3e-3),
    "Fashion-MNIST to 90 %": TimeToAccuracy(
        "fashion-mnist", 0.9, epochs=24, folds=None, hidden=(512, 512), batch=128, rate=1e-3, decay=1e-2, dropout=0.3,
        cosine=True,
    ),
}  # fmt: skip
QUICK = ()
ROUNDS = dict.fromkeys(JOBS, 9)  # at least 10 seeds, because each call has its own
EXTRA = ("Fashion-MNIST to 90 %",)  # 20 to 40 seconds per seed and peer on two cores
