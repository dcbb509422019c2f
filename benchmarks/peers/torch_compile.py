"""PyTorch with `torch.compile`."""

import shutil
import time
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.jobs.definitions import Program, Training, training_inputs
from benchmarks.peers.torch_eager import (
    DEVICE,
    THREADS,
    loss_of,
    network,
    program,
    shuffled,
    step_of,
    synchronize,
    threads,
)

NAME = "torch.compile"
NEEDS = ("torch",)
FORMS = {"training": ("naive", "fast")}
SLOW = ("naive", "fast")

FIRST = 3  # steps: Adam makes its state in the first, so the second compiles once more


def training(job: Training, form: str) -> Program:
    """naive: the compiled model. fast: model and loss compiled as one, a fused Adam, threads as they pay."""
    has_compiler()
    inputs = training_inputs(job)
    torch.set_num_threads(threads(job) if form == "fast" else THREADS)
    torch.compiler.reset()  # what another job has compiled is not taken for this one, with shapes left open
    model = network(job, inputs.layers)
    batches = shuffled(job, inputs)
    optimizer = torch.optim.Adam(model.parameters(), job.rate, fused=True if form == "fast" else None)
    if form == "naive":
        state, step = torch.compile(model), step_of(job, optimizer)
    else:
        state, step = model, _step(job, model, optimizer)
    stages = {"compile": _warm_up(state, optimizer, step, next(batches(0)))}
    return program(job, inputs, batches, step, state, lambda _: list(model.parameters()), stages)


def has_compiler() -> None:
    """Raises where PyTorch cannot compile.

    Raises:
      ValueError: for the CPU it needs a compiler of C++.
    """
    if DEVICE == "cpu" and not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        raise ValueError("torch.compile needs a C++ compiler")


def _step(job: Training, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
    # compiling optimizer.step too, or both in one function, which breaks at backward(), is no faster on a CPU
    @torch.compile
    def loss(x: Tensor, y: Tensor) -> Any:
        return loss_of(job, model(x), y)

    def step(model: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
        optimizer.zero_grad(set_to_none=True)
        loss(x, y).backward()
        optimizer.step()
        return model

    return step


def _warm_up(model: Any, optimizer: torch.optim.Optimizer, step: Any, batch: tuple[Tensor, Tensor]) -> float:
    """Seconds of the first steps, which are taken back."""
    start = [param.detach().clone() for param in model.parameters()]
    clock = time.perf_counter()
    for _ in range(FIRST):
        step(model, *batch)
    synchronize()
    seconds = time.perf_counter() - clock
    with torch.no_grad():
        for param, before in zip(model.parameters(), start, strict=True):
            param.copy_(before)
            for part in optimizer.state[param].values():
                part.zero_()
    return seconds
