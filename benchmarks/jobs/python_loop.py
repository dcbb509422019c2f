"""Define the order of batches for libraries that leave the training loop to their users, and check the result."""

from collections.abc import Sequence

import numpy as np

from benchmarks.jobs.definitions import Training
from benchmarks.jobs.inputs import Inputs
from benchmarks.jobs.reference import training_error


def epoch_rows(job: Training, epoch: int, member: int = 0) -> list[np.ndarray | None]:
    """Return the row indices (batch,) of each step of an epoch in the member's order; [None] for full-batch steps."""
    if job.batch is None:
        return [None]
    order = np.random.default_rng((1, epoch, member)).permutation(job.rows).astype(np.int32)
    return list(order.reshape(-1, job.batch))


def python_loop_error(job: Training, inputs: Inputs, params: Sequence[np.ndarray]) -> float:
    """Return the error of the parameters after the first call, with batches in the order of `epoch_rows`."""
    batches = [rows for epoch in range(job.epochs) for rows in epoch_rows(job, epoch)]
    rows = None if job.batch is None else np.stack([batch for batch in batches if batch is not None])
    return training_error(job, inputs, rows, params)
