"""PyTorch's transformations of functions: `functional_call`, `grad` and `vmap`, with an Adam written by hand."""

import time
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, vmap

from benchmarks.jobs.definitions import Deepening, Ensemble, Program, Training, depth_inputs, training_inputs
from benchmarks.jobs.reference import B1, B2, EPS, ensemble_error
from benchmarks.jobs.reference_depth import depth_error
from benchmarks.peers._torch.layout import to_torch
from benchmarks.peers.torch_compile import has_compiler
from benchmarks.peers.torch_eager import (
    DEVICE,
    THREADS,
    arrays,
    first_rows,
    loss_of,
    member_orders,
    network,
    program,
    shuffled,
    synchronize,
    tensors,
    threads,
)

NAME = "torch.func"
NEEDS = ("torch",)
FORMS = {
    "training": ("naive", "fast"),
    "ensemble": ("vmap", "vmap compiled"),
    "conv_ensemble": ("vmap", "vmap compiled"),
    "sweep": ("vmap", "vmap compiled"),
    "depth": ("compiled",),
}
SLOW = ("fast", "vmap compiled", "compiled")

DEEP = 50  # blocks up to which a loop over them compiles within a minute

Params = dict[str, Tensor]
Blocks = list[tuple[Tensor, Tensor]]  # w and b of each
State = tuple[Params, Params, Params, Tensor]  # parameters, their gradients' means, those of their squares, steps


def training(job: Training, form: str) -> Program:
    """naive: gradients as a function, then Adam. fast: the same, compiled as one."""
    inputs = training_inputs(job)
    torch.set_num_threads(threads(job) if form == "fast" else THREADS)
    model = network(job, inputs.layers)

    def loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return loss_of(job, functional_call(model, params, (x,)), y)

    step = _step(job, grad_and_value(loss))
    state = _start({name: param.detach().clone() for name, param in model.named_parameters()})
    batches = shuffled(job, inputs)
    stages: dict[str, float] = {}
    if form == "fast":
        step, stages = _compiled(step, state, *next(batches(0)))
    return program(job, inputs, batches, step, state, lambda state: list(state[0].values()), stages)


def ensemble(job: Ensemble, form: str) -> Program:
    """The gradients of all members at once; Adam is the same for all, but for rates and decays of their own."""
    each = job.training
    inputs = training_inputs(each, job.members, own=job.own)
    torch.set_num_threads(threads(each, job.members))
    model = network(each, [(w[0], b[0]) for w, b in inputs.layers])

    def loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return loss_of(each, functional_call(model, params, (x,)), y)

    stacked = [torch.from_numpy(array.copy()).to(DEVICE) for array in to_torch(inputs.layers)]
    names = [name for name, _ in model.named_parameters()]
    state = _start(dict(zip(names, stacked, strict=True)))
    x, y = tensors(inputs)
    batch = each.batch or each.rows
    members = torch.arange(job.members, device=DEVICE)[:, None]
    update = _step(each, vmap(grad_and_value(loss)), torch.tensor(job.pairs, device=DEVICE).T if job.pairs else None)

    def step(state: State, rows: Tensor) -> State:
        return update(state, *((x[members, rows], y[members, rows]) if job.own else (x[rows], y[rows])))

    stages: dict[str, float] = {}
    if form == "vmap compiled":
        step, stages = _compiled(step, state, member_orders(job, 0)[:, :batch])

    def call(at: tuple[int, State]) -> tuple[int, State]:
        epoch, state = at
        for i in range(each.epochs):
            for rows in torch.split(member_orders(job, epoch + i), batch, 1):
                state = step(state, rows)
        return epoch + each.epochs, state

    return Program(
        state=(0, state),
        call=call,
        block=lambda _: synchronize(),
        error=lambda at: ensemble_error(job, inputs, first_rows(job), arrays(list(at[1][0].values()))),
        units=each.steps * job.members,
        stages=stages,
    )


def conv_ensemble(job: Ensemble, form: str) -> Program:
    """The same."""
    return ensemble(job, form)


def sweep(job: Ensemble, form: str) -> Program:
    """The same."""
    return ensemble(job, form)


def depth(job: Deepening, form: str) -> Program:
    """A loop over the blocks and gradient descent, compiled as one.

    Raises:
      ValueError: for more than `DEEP` blocks.
    """
    if job.blocks > DEEP:
        raise ValueError(f"{job.blocks} blocks compile for minutes, at most {DEEP}")
    torch.set_num_threads(1)  # a block is too small for two
    inputs = depth_inputs(job)
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

    jitted, stages = _compiled(step, blocks, x, y)

    def call(blocks: Blocks) -> Blocks:
        for _ in range(job.steps):
            blocks = jitted(blocks, x, y)
        return blocks

    def error(blocks: Blocks) -> float:
        return depth_error(job, *(torch.stack(parts).cpu().numpy() for parts in zip(*blocks, strict=True)))

    return Program(blocks, call, lambda _: synchronize(), error, job.steps, stages)


def _start(params: Params) -> State:
    mean, square = ({name: torch.zeros_like(param) for name, param in params.items()} for _ in range(2))
    return params, mean, square, torch.zeros((), device=DEVICE)


def _step(job: Training, gradients: Any, pairs: Tensor | None = None) -> Any:
    """`(state, x, y) -> state`; with pairs (2, members), each member's rate and decay."""

    def updated(p: Tensor, m: Tensor, v: Tensor, t: Tensor) -> Tensor:
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
        params = {name: updated(p, mean[name], square[name], t) for name, p in params.items()}
        return params, mean, square, t

    return step


def _compiled(step: Any, state: Any, *args: Tensor) -> tuple[Any, dict[str, float]]:
    """A step, compiled for these arguments, and how long that took."""
    has_compiler()
    torch.compiler.reset()
    options: Any = {"cpp_wrapper": True} if DEVICE == "cpu" else None  # up to a third faster than a call from Python
    jitted: Any = torch.compile(step, options=options)
    clock = time.perf_counter()
    for _ in range(2):  # its own results may have other strides than the start, and are compiled for once more
        state = jitted(state, *args)
    synchronize()
    return jitted, {"compile": time.perf_counter() - clock}
