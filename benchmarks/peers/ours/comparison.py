"""Optimizers held against each other."""

import numpy as np
import optax

from benchmarks.work import Comparing, Program
from nnjax import optcheck, optim
from nnjax.optcheck import Report


def comparison(job: Comparing, form: str) -> Program:
    """`optcheck.compare`, of optimizers that are made anew each time, so that all of it is traced again."""

    def call(_: Report | None) -> Report:
        if job.what == "match":
            return optcheck.compare(optim.adam(1e-3), optax.adam(1e-3))
        return optcheck.compare(optax.adam(1e-3, eps=0.0, eps_root=1e-8), optax.adam(1e-3))

    def error(report: Report) -> float:
        causes = [cause.id for cause in report.causes]
        right = report.ok if job.what == "match" else (not report.ok and causes == ["eps-inside"])
        return 0.0 if right else np.inf

    return Program(None, call, lambda _: None, error, units=1)
