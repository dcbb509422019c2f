"""Run `optcheck.compare` on two optimizers that are equal or differ in one formula."""

import numpy as np
import optax

from benchmarks.jobs.definitions import OptimizerComparison
from benchmarks.jobs.program import Program
from nnjax import optcheck, optim
from nnjax.optcheck import Report


def optimizer_comparison(job: OptimizerComparison, form: str) -> Program:
    """Run `optcheck.compare` on new optimizers in each call, which traces all functions again."""

    def call(_: Report | None) -> Report:
        if job.what == "match":
            return optcheck.compare(optim.adam(1e-3), optax.adam(1e-3))
        return optcheck.compare(optax.adam(1e-3, eps=0.0, eps_root=1e-8), optax.adam(1e-3))

    def error(report: Report) -> float:
        causes = [cause.id for cause in report.causes]
        correct = report.ok if job.what == "match" else (not report.ok and causes == ["eps-inside"])
        return 0.0 if correct else np.inf

    return Program(state=None, call=call, block=lambda _: None, error=error, units=1)
