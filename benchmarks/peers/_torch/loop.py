"""Train in PyTorch with a loop over batches."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.jobs.definitions import Ensemble, Training
from benchmarks.jobs.inputs import Inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.python_loop import epoch_rows, python_loop_error
from benchmarks.peers._torch.device import DEVICE, synchronize
from benchmarks.peers._torch.model import mean_loss, to_arrays, to_tensors

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]  # epoch -> batches
Step = Callable[[Any, Tensor, Tensor], Any]  # (state, x, y) -> state


def batch_loop(
    job: Training,
    inputs: Inputs,
    step: Step,
    state: Any,
    *,
    batches: Batches,
    params: Callable[[Any], Sequence[Tensor]],
    stages: dict[str, float] = {},  # noqa: B006
) -> Program:
    """Return a program that takes a step for each batch.

    Args:
      job: the job.
      inputs: the initial parameters and the examples.
      step: function `(state, x, y) -> state` that takes one training step.
      state: the state before the first step.
      batches: function that returns the batches of an epoch.
      params: function that maps a state to w and b of each layer, in order.
      stages: seconds to compile, if the step is compiled.
    """

    def call(carry: tuple[int, Any]) -> tuple[int, Any]:
        epoch, state = carry
        for i in range(job.epochs):
            for x, y in batches(epoch + i):
                state = step(state, x, y)
        return epoch + job.epochs, state

    return Program(
        state=(0, state),
        call=call,
        block=lambda _: synchronize(),
        error=lambda carry: python_loop_error(job, inputs, to_arrays(params(carry[1]))),
        units=job.steps,
        stages=stages,
    )


def module_step(job: Training, optimizer: torch.optim.Optimizer) -> Step:
    """Return a step that updates the module in place."""

    def step(model: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
        optimizer.zero_grad(set_to_none=True)
        mean_loss(job, model(x), y).backward()
        optimizer.step()
        return model

    return step


def shuffled_batches(job: Training, inputs: Inputs) -> Batches:
    """Return a function that returns the batches of an epoch as views of shuffled tensors."""
    data = to_tensors(inputs)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        if job.batch is None:
            return iter([data])
        order = np.concatenate([rows for rows in epoch_rows(job, epoch) if rows is not None])
        return split_batches(job, data, torch.from_numpy(order).to(DEVICE))

    return batches


def split_batches(job: Training, data: tuple[Tensor, Tensor], order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Return the batches of x and y, with rows in the given order."""
    x, y = (torch.split(array.index_select(0, order), job.batch or job.rows) for array in data)
    return zip(x, y, strict=True)


def member_orders(job: Ensemble, epoch: int) -> Tensor:
    """Return each member's order of the rows in an epoch, of shape (members, rows)."""
    generator = torch.Generator(DEVICE).manual_seed(epoch)
    return torch.rand(job.members, job.training.rows, generator=generator, device=DEVICE).argsort(-1)


def first_member_rows(job: Ensemble) -> np.ndarray:
    """Return the row indices of all batches in the first call, of shape (members, steps, batch)."""
    orders = torch.cat([member_orders(job, epoch) for epoch in range(job.training.epochs)], 1)
    return orders.reshape(job.members, job.training.steps, -1).cpu().numpy()
