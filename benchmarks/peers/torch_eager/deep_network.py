"""Train a deep residual network, whose blocks are `torch.nn` modules."""

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.jobs.definitions import DeepNetwork
from benchmarks.jobs.inputs import deep_network_inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference_deep_network import deep_network_error
from benchmarks.peers._torch.device import DEVICE, synchronize


def deep_network(job: DeepNetwork, form: str) -> Program:
    """Loop over the modules of the blocks, with an SGD that updates all parameters in one operation."""
    torch.set_num_threads(1)  # blocks are too small for two threads
    inputs = deep_network_inputs(job)
    blocks = [nn.Linear(job.width, job.width, device=DEVICE) for _ in range(job.blocks)]
    params = [param for block in blocks for param in (block.weight, block.bias)]
    with torch.no_grad():
        for block, w, b in zip(blocks, *inputs.layers[0], strict=True):
            block.weight.copy_(torch.from_numpy(w.T))
            block.bias.copy_(torch.from_numpy(b))
    x, y = (torch.from_numpy(array).to(DEVICE) for array in (inputs.x, inputs.y))
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
        w, b = (torch.stack(tensors).detach().cpu() for tensors in (params[::2], params[1::2]))
        return deep_network_error(job, w.mT.numpy(), b.numpy())

    return Program(state=None, call=call, block=lambda _: synchronize(), error=error, units=job.steps)
