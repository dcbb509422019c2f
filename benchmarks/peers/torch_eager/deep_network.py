"""Deep networks with PyTorch: a loop over the blocks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.jobs.definitions import Deepening, Program, depth_inputs
from benchmarks.jobs.reference_depth import depth_error


def depth(job: Deepening, device: str, synchronize: Callable[[], None]) -> Program:
    """A module for each block, and SGD for all parameters in one operation."""
    inputs = depth_inputs(job)
    blocks = [nn.Linear(job.width, job.width, device=device) for _ in range(job.blocks)]
    params = [param for block in blocks for param in (block.weight, block.bias)]
    with torch.no_grad():
        for block, w, b in zip(blocks, *inputs.layers[0], strict=True):
            block.weight.copy_(torch.from_numpy(w.T))
            block.bias.copy_(torch.from_numpy(b))
    x, y = (torch.from_numpy(array).to(device) for array in (inputs.x, inputs.y))
    optimizer = torch.optim.SGD(params, job.rate, foreach=True)

    def call(state: None) -> None:
        for _ in range(job.steps):
            z: Tensor = x
            for block in blocks:
                z = z + torch.relu(block(z))
            optimizer.zero_grad(set_to_none=True)
            loss: Any = (z - y).square().sum(-1).mean()
            loss.backward()
            optimizer.step()

    def error(state: None) -> float:
        w, b = (torch.stack(parts).detach().cpu() for parts in (params[::2], params[1::2]))
        return depth_error(job, w.mT.numpy(), b.numpy())

    return Program(state=None, call=call, block=lambda _: synchronize(), error=error, units=job.steps)
