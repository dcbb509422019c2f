"""Measure the overhead of one operation on a list of tensors."""

import torch

from benchmarks.jobs.definitions import Dispatch
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference import dispatch_error
from benchmarks.peers._torch.device import ALL_THREADS, DEVICE, synchronize


def dispatch(job: Dispatch, form: str) -> Program:
    """Call one operation that adds 1 to a list of tensors."""
    torch.set_num_threads(ALL_THREADS)
    leaves = [torch.zeros(job.size, device=DEVICE) for _ in range(job.leaves)]

    def call(state: None) -> None:
        for _ in range(job.calls):
            torch._foreach_add_(leaves, 1.0)

    return Program(
        state=None,
        call=call,
        block=lambda _: synchronize(),
        error=lambda _: dispatch_error(job, [leaf.cpu().numpy() for leaf in leaves]),
        units=job.calls,
    )
