"""Train with PyTorch's function transforms (`functional_call`, `grad`, `vmap`) and a handwritten Adam."""

import time
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, vmap
from torch.utils._pytree import tree_leaves

from benchmarks.jobs.definitions import DeepNetwork, Ensemble, Training
from benchmarks.jobs.inputs import deep_network_inputs, training_inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference import B1, B2, EPS, ensemble_error
from benchmarks.jobs.reference_deep_network import deep_network_error
from benchmarks.peers._torch import device
from benchmarks.peers._torch.device import ALL_THREADS, DEVICE, require_compiler, synchronize, useful_threads
from benchmarks.peers._torch.loop import batch_loop, first_member_rows, member_orders, shuffled_batches
from benchmarks.peers._torch.model import make_network, mean_loss, to_arrays, to_tensors, to_torch_layout

NAME = "torch.func"
NEEDS = ("torch",)
FORMS = {
    "training": ("naive", "fast", "CUDA graphs"),
    "ensemble": ("vmap", "vmap compiled", "vmap CUDA graphs"),
    "conv_ensemble": ("vmap", "vmap compiled", "vmap CUDA graphs"),
    "sweep": ("vmap", "vmap compiled", "vmap CUDA graphs"),
    "deep_network": ("compiled",),
}
SLOW = ("fast", "CUDA graphs", "vmap compiled", "vmap CUDA graphs", "compiled")
APART = ("fast", "CUDA graphs", "vmap compiled", "vmap CUDA graphs", "compiled")

MOST_BLOCKS = 50  # maximum number of blocks for which a loop compiles within a minute

Params = dict[str, Tensor]
Blocks = list[tuple[Tensor, Tensor]]  # w and b of each block
State = tuple[Params, Params, Params, Tensor]  # parameters, first and second moments, step


def training(job: Training, form: str) -> Program:
    """Train with a handwritten Adam and gradients from `grad_and_value`.

    The form "naive" runs the step in eager mode, and "fast" compiles it. "CUDA graphs" compiles it with
    mode="reduce-overhead"; it needs a GPU, and has not been measured yet.

    Raises:
      ValueError: if the form is "CUDA graphs" on a CPU, or if it is compiled and, on a CPU, there is no C++ compiler.
    """
    if form == "CUDA graphs":
        device.require_cuda_graphs()
    inputs = training_inputs(job)
    torch.set_num_threads(ALL_THREADS if form == "naive" else useful_threads(job))
    model = make_network(job, inputs.layers)

    def loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return mean_loss(job, functional_call(model, params, (x,)), y)

    step = _adam_step(job, grad_and_value(loss))
    state = _initial_state({name: param.detach().clone() for name, param in model.named_parameters()})
    batches = shuffled_batches(job, inputs)
    stages: dict[str, float] = {}
    if form != "naive":
        compile_step = _compile_step if form == "fast" else _compile_with_cuda_graphs
        step, stages = compile_step(step, state, *next(batches(0)))
    return batch_loop(
        job,
        inputs,
        step,
        state,
        batches=batches,
        params=lambda state: list(state[0].values()),
        stages=stages,
    )


def ensemble(job: Ensemble, form: str) -> Program:
    """Train all members at once with `vmap`; in a sweep, each member has its own learning rate and weight decay.

    Raises:
      ValueError: if the form is "vmap CUDA graphs" on a CPU, or if it is compiled and, on a CPU, there is no C++
        compiler.
    """
    if form == "vmap CUDA graphs":
        device.require_cuda_graphs()
    member_job = job.training
    inputs = training_inputs(member_job, job.members, own_data=job.own_data)
    torch.set_num_threads(useful_threads(member_job, job.members))
    model = make_network(member_job, [(w[0], b[0]) for w, b in inputs.layers])

    def loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return mean_loss(member_job, functional_call(model, params, (x,)), y)

    params = [torch.from_numpy(array.copy()).to(DEVICE) for array in to_torch_layout(inputs.layers)]
    names = [name for name, _ in model.named_parameters()]
    state = _initial_state(dict(zip(names, params, strict=True)))
    x, y = to_tensors(inputs)
    batch = member_job.batch or member_job.rows
    members = torch.arange(job.members, device=DEVICE)[:, None]
    pairs = torch.tensor(job.pairs, device=DEVICE).T if job.pairs else None
    update = _adam_step(member_job, vmap(grad_and_value(loss)), pairs)

    def step(state: State, rows: Tensor) -> State:
        return update(state, *((x[members, rows], y[members, rows]) if job.own_data else (x[rows], y[rows])))

    stages: dict[str, float] = {}
    if form != "vmap":
        compile_step = _compile_step if form == "vmap compiled" else _compile_with_cuda_graphs
        step, stages = compile_step(step, state, member_orders(job, 0)[:, :batch])

    def call(carry: tuple[int, State]) -> tuple[int, State]:
        epoch, state = carry
        for i in range(member_job.epochs):
            for rows in torch.split(member_orders(job, epoch + i), batch, 1):
                state = step(state, rows)
        return epoch + member_job.epochs, state

    return Program(
        state=(0, state),
        call=call,
        block=lambda _: synchronize(),
        error=lambda carry: ensemble_error(job, inputs, first_member_rows(job), to_arrays(list(carry[1][0].values()))),
        units=member_job.steps * job.members,
        stages=stages,
    )


conv_ensemble = ensemble
sweep = ensemble


def deep_network(job: DeepNetwork, form: str) -> Program:
    """Train by gradient descent, with a compiled step that loops over the blocks.

    Raises:
      ValueError: if there are more than `MOST_BLOCKS` blocks, or, on a CPU, if there is no C++ compiler.
    """
    if job.blocks > MOST_BLOCKS:
        raise ValueError(f"{job.blocks} blocks take minutes to compile; at most {MOST_BLOCKS} are measured")
    torch.set_num_threads(1)  # blocks are too small for two threads
    inputs = deep_network_inputs(job)
    x, y = (torch.from_numpy(array).to(DEVICE) for array in (inputs.x, inputs.y))
    blocks = [
        tuple(torch.from_numpy(array).to(DEVICE) for array in block) for block in zip(*inputs.layers[0], strict=True)
    ]

    def loss(blocks: Blocks, x: Tensor, y: Tensor) -> Tensor:
        for w, b in blocks:
            x = x + torch.relu(x @ w + b)
        return (x - y).square().sum(-1).mean()

    def step(blocks: Blocks, x: Tensor, y: Tensor) -> Blocks:
        grads = grad(loss)(blocks, x, y)
        return [(w - job.rate * dw, b - job.rate * db) for (w, b), (dw, db) in zip(blocks, grads, strict=True)]

    compiled_step, stages = _compile_step(step, blocks, x, y)

    def call(blocks: Blocks) -> Blocks:
        for _ in range(job.steps):
            blocks = compiled_step(blocks, x, y)
        return blocks

    def error(blocks: Blocks) -> float:
        return deep_network_error(job, *(torch.stack(tensors).cpu().numpy() for tensors in zip(*blocks, strict=True)))

    return Program(state=blocks, call=call, block=lambda _: synchronize(), error=error, units=job.steps, stages=stages)


def _initial_state(params: Params) -> State:
    mean, square = ({name: torch.zeros_like(param) for name, param in params.items()} for _ in range(2))
    return params, mean, square, torch.zeros((), device=DEVICE)


def _adam_step(job: Training, gradients: Any, pairs: Tensor | None = None) -> Any:
    """Return the step `(state, x, y) -> state`.

    Args:
      job: the job; its learning rate is used if `pairs` is None.
      gradients: function `(params, x, y) -> (gradients, loss)`.
      pairs: learning rate and weight decay of each member, (2, members), or None.
    """

    def update(p: Tensor, m: Tensor, v: Tensor, t: Tensor) -> Tensor:
        adam = (m / (1 - B1**t)) / ((v / (1 - B2**t)).sqrt() + EPS)
        if pairs is None:
            return p - job.rate * adam
        rate, decay = pairs.reshape(2, -1, *(1,) * (p.ndim - 1))
        return p - rate * (adam + decay * p)

    def step(state: State, x: Tensor, y: Tensor) -> State:
        params, mean, square, t = state
        grads, _ = gradients(params, x, y)
        t = t + 1
        mean = {name: B1 * m + (1 - B1) * grads[name] for name, m in mean.items()}
        square = {name: B2 * v + (1 - B2) * grads[name] ** 2 for name, v in square.items()}
        params = {name: update(p, mean[name], square[name], t) for name, p in params.items()}
        return params, mean, square, t

    return step


def _compile_step(step: Any, state: Any, *args: Tensor) -> tuple[Any, dict[str, float]]:
    """Compile a step for these arguments, and return the compiled step and its compile time in seconds."""
    require_compiler()
    torch.compiler.reset()
    options: Any = {"cpp_wrapper": True} if DEVICE == "cpu" else None  # up to a third faster than the Python wrapper
    compiled_step: Any = torch.compile(step, options=options)
    clock = time.perf_counter()
    for _ in range(2):  # if outputs and initial state have different strides, the second call compiles again
        state = compiled_step(state, *args)
    synchronize()
    return compiled_step, {"compile": time.perf_counter() - clock}


def _compile_with_cuda_graphs(step: Any, state: Any, *args: Tensor) -> tuple[Any, dict[str, float]]:
    """Compile a step that overwrites its state, as CUDA graphs use fixed addresses; see `_compile_step`."""
    require_compiler()
    torch.compiler.reset()
    tensors = tree_leaves(state)
    start = [tensor.clone() for tensor in tensors]
    for tensor in tensors:
        torch._dynamo.mark_static_address(tensor)

    def overwrite(state: Any, *args: Tensor) -> None:
        for tensor, value in zip(tree_leaves(state), tree_leaves(step(state, *args)), strict=True):
            tensor.copy_(value)

    new_step: Any = torch.compiler.cudagraph_mark_step_begin
    compiled: Any = torch.compile(overwrite, mode="reduce-overhead")

    def compiled_step(state: Any, *args: Tensor) -> Any:
        new_step()
        compiled(state, *args)
        return state

    clock = time.perf_counter()
    for _ in range(3):  # the third call records the graph
        compiled_step(state, *args)
    synchronize()
    seconds = time.perf_counter() - clock
    for tensor, value in zip(tensors, start, strict=True):
        tensor.copy_(value)
    return compiled_step, {"compile": seconds}
