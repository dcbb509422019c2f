"""Run only the updates of `torch.optim`."""

from typing import Any

import torch

from benchmarks.jobs.definitions import Updates
from benchmarks.jobs.inputs import update_inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference import update_error
from benchmarks.peers._torch.device import ALL_THREADS, DEVICE, synchronize


def updates(job: Updates, form: str) -> Program:
    """Update with `torch.optim`, in one call per operation for all arrays ("foreach") or in one kernel ("fused").

    Raises:
      ValueError: if PyTorch does not have the rule.
    """
    params, both_grads = ([torch.from_numpy(array).to(DEVICE) for array in arrays] for arrays in update_inputs(job))
    torch.set_num_threads(ALL_THREADS)
    step_grads = [[leaf[i] for leaf in both_grads] for i in range(2)]
    option: dict[str, Any] = {form: True}
    optimizer: torch.optim.Optimizer
    if job.rule == "sgd":
        optimizer = torch.optim.SGD(params, job.rate, **option)
    elif job.rule == "adam":
        optimizer = torch.optim.Adam(params, job.rate, **option)
    elif job.rule == "adamw":
        optimizer = torch.optim.AdamW(params, job.rate, weight_decay=job.decay, **option)
    else:
        raise ValueError(f"PyTorch has no {job.rule}")

    def call(state: None) -> None:
        for t in range(job.steps):
            for param, grad in zip(params, step_grads[t % 2], strict=True):
                param.grad = grad
            optimizer.step()

    return Program(
        state=None,
        call=call,
        block=lambda _: synchronize(),
        error=lambda _: update_error(job, [param.cpu().numpy() for param in params]),
        units=job.steps,
    )
