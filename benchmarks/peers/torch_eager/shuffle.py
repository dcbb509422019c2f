"""The order of the data in PyTorch: its loader, and its permutation."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, RandomSampler

from benchmarks.jobs.definitions import Program, Shuffling
from benchmarks.jobs.reference import shuffling_error


def shuffle(job: Shuffling, form: str, device: str, synchronize: Any) -> Program:
    """loader: the samplers that a `DataLoader` asks for its batches. randperm: all batches at once."""
    generator = torch.Generator(device if form == "randperm" else "cpu").manual_seed(1)

    def drawn() -> Any:
        if form == "randperm":
            return torch.randperm(job.rows, generator=generator, device=device).reshape(-1, job.batch)
        order = RandomSampler(range(job.rows), generator=generator)
        return list(BatchSampler(order, job.batch, drop_last=True))

    def error(rows: Any) -> float:
        found = rows.cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)
        return shuffling_error(job, found)

    return Program(state=None, call=lambda _: drawn(), block=lambda _: synchronize(), error=error, units=job.steps)
