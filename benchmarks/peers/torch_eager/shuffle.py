"""Shuffle the rows of an epoch with PyTorch's samplers or a random permutation."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, RandomSampler

from benchmarks.jobs.definitions import Shuffle
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference import shuffle_error
from benchmarks.peers._torch.device import DEVICE, synchronize


def shuffle(job: Shuffle, form: str) -> Program:
    """Draw all batches of an epoch.

    The form "loader" uses the samplers of a `DataLoader`, and "randperm" draws one random permutation.
    """
    generator = torch.Generator(DEVICE if form == "randperm" else "cpu").manual_seed(1)

    def call(_: Any) -> Any:
        if form == "randperm":
            return torch.randperm(job.rows, generator=generator, device=DEVICE).reshape(-1, job.batch)
        order = RandomSampler(range(job.rows), generator=generator)
        return list(BatchSampler(order, job.batch, drop_last=True))

    def error(rows: Any) -> float:
        return shuffle_error(job, rows.cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows))

    return Program(state=None, call=call, block=lambda _: synchronize(), error=error, units=job.steps)
