"""Train in PyTorch, with the model alone or with model and loss compiled by `torch.compile`."""

import time
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.jobs.definitions import Training
from benchmarks.jobs.inputs import training_inputs
from benchmarks.jobs.program import Program
from benchmarks.peers._torch import device
from benchmarks.peers._torch.device import ALL_THREADS, require_compiler, synchronize, useful_threads
from benchmarks.peers._torch.loop import Step, batch_loop, module_step, shuffled_batches
from benchmarks.peers._torch.model import make_network, mean_loss

NAME = "torch.compile"
NEEDS = ("torch",)
FORMS = {"training": ("naive", "fast", "CUDA graphs")}
SLOW = ("naive", "fast", "CUDA graphs")
APART = ("naive", "fast", "CUDA graphs")

WARM_UP_STEPS = 3  # Adam creates its state in the first step, so the second step compiles again


def training(job: Training, form: str) -> Program:
    """Train with a compiled model or a compiled loss.

    The form "naive" compiles only the model. "fast" compiles model and loss together, with a fused Adam and one thread
    for small products. "CUDA graphs" is like "fast", but with mode="reduce-overhead"; it needs a GPU, and has not been
    measured yet.

    Raises:
      ValueError: if the form is "CUDA graphs" on a CPU, or, on a CPU, if there is no C++ compiler.
    """
    if form == "CUDA graphs":
        device.require_cuda_graphs()
    require_compiler()
    inputs = training_inputs(job)
    torch.set_num_threads(ALL_THREADS if form == "naive" else useful_threads(job))
    torch.compiler.reset()  # otherwise, the second job would be compiled with dynamic shapes
    model = make_network(job, inputs.layers)
    batches = shuffled_batches(job, inputs)
    optimizer = torch.optim.Adam(model.parameters(), job.rate, fused=None if form == "naive" else True)
    state: Any
    if form == "naive":
        state, step = torch.compile(model), module_step(job, optimizer)
    else:
        mode = "reduce-overhead" if form == "CUDA graphs" else None
        state, step = model, _compiled_loss_step(job, model, optimizer, mode)
    seconds = _warm_up(state, optimizer, step, next(batches(0)))
    return batch_loop(
        job,
        inputs,
        step,
        state,
        batches=batches,
        params=lambda _: list(model.parameters()),
        stages={"compile": seconds},
    )


def _compiled_loss_step(job: Training, model: nn.Module, optimizer: torch.optim.Optimizer, mode: str | None) -> Step:
    # On CPUs, compiling optimizer.step is no faster, neither alone nor with the loss (backward() breaks the graph)
    new_step: Any = torch.compiler.cudagraph_mark_step_begin

    @torch.compile(mode=mode)
    def loss(x: Tensor, y: Tensor) -> Any:
        return mean_loss(job, model(x), y)

    def step(model: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
        new_step()  # the results of the previous step are no longer needed
        optimizer.zero_grad(set_to_none=True)
        loss(x, y).backward()
        optimizer.step()
        return model

    return step


def _warm_up(model: Any, optimizer: torch.optim.Optimizer, step: Step, batch: tuple[Tensor, Tensor]) -> float:
    """Take the first steps, undo them, and return how many seconds they took."""
    start = [param.detach().clone() for param in model.parameters()]
    clock = time.perf_counter()
    for _ in range(WARM_UP_STEPS):
        step(model, *batch)
    synchronize()
    seconds = time.perf_counter() - clock
    with torch.no_grad():
        for param, before in zip(model.parameters(), start, strict=True):
            param.copy_(before)
            for moment in optimizer.state[param].values():
                moment.zero_()
    return seconds
