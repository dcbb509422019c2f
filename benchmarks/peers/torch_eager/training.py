"""PyTorch without a compiler; and what its other peers share: the network, the batches, the program."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.jobs.definitions import (
    IMAGE,
    Deepening,
    Dispatching,
    Ensemble,
    Inputs,
    Layers,
    Optimizing,
    Program,
    Reaching,
    Shuffling,
    Training,
    optimizing_inputs,
    training_inputs,
)
from benchmarks.jobs.python_loop import epoch_rows, loop_error
from benchmarks.jobs.reference import ensemble_error, optimizing_error
from benchmarks.peers._jax.dispatch import added_error
from benchmarks.peers._torch import layout as torch_layout

NAME = "torch eager"
NEEDS = ("torch",)
FORMS = {
    "training": ("naive", "fast"),
    "ensemble": ("loop",),
    "conv_ensemble": ("loop",),
    "depth": ("loop",),
    "optimizer": ("foreach", "fused"),
    "shuffle": ("loader", "randperm"),
    "dispatch": ("foreach",),
    "accuracy": ("fast",),
}

THREADS = torch.get_num_threads()
FEW = 2e7  # operations of a step up to which a second thread costs more than it does
MANY = 64  # members of an ensemble that is trained in a loop
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.backends.cudnn.allow_tf32 = False  # products are float32 for all

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]  # of an epoch
Step = Callable[[Any, Tensor, Tensor], Any]  # (state, x, y) -> state


def training(job: Training, form: str) -> Program:
    """naive: the tutorial's loop with a `DataLoader`. fast: rows of tensors, a fused Adam, threads as they pay."""
    inputs = training_inputs(job)
    torch.set_num_threads(threads(job) if form == "fast" else THREADS)
    model = network(job, inputs.layers)
    optimizer = torch.optim.Adam(model.parameters(), job.rate, fused=True if form == "fast" else None)
    batches = shuffled(job, inputs) if form == "fast" else _loaded(job, inputs)
    return program(job, inputs, batches, step_of(job, optimizer), model, lambda model: list(model.parameters()))


def ensemble(job: Ensemble, form: str) -> Program:
    """One member after the other, each with the fast step.

    Raises:
      ValueError: for more than `MANY` members.
    """
    if job.members > MANY:
        raise ValueError(f"{job.members} members one after the other take too long, at most {MANY}")
    each = job.training
    inputs = training_inputs(each, job.members, own=job.own)
    torch.set_num_threads(threads(each))
    x, y = tensors(inputs)
    models = [network(each, [(w[i], b[i]) for w, b in inputs.layers]) for i in range(job.members)]
    steps = [step_of(each, torch.optim.Adam(model.parameters(), each.rate, fused=True)) for model in models]

    def call(epoch: int) -> int:
        for _ in range(each.epochs):
            orders = member_orders(job, epoch)
            for i, (model, step, order) in enumerate(zip(models, steps, orders, strict=True)):
                mine = (x[i], y[i]) if job.own else (x, y)
                for batch in _split(each, mine, order):
                    step(model, *batch)
            epoch += 1
        return epoch

    def found() -> list[np.ndarray]:
        members = [arrays(list(model.parameters())) for model in models]
        return [np.stack(parts) for parts in zip(*members, strict=True)]

    return Program(
        state=0,
        call=call,
        block=lambda _: synchronize(),
        error=lambda _: ensemble_error(job, inputs, first_rows(job), found()),
        units=each.steps * job.members,
    )


def conv_ensemble(job: Ensemble, form: str) -> Program:
    """The same."""
    return ensemble(job, form)


def depth(job: Deepening, form: str) -> Program:
    """A loop over the blocks."""
    from benchmarks.peers.torch_eager.depth import depth as program

    torch.set_num_threads(1)  # a block is too small for two
    return program(job, DEVICE, synchronize)


def optimizer(job: Optimizing, form: str) -> Program:
    """One of `torch.optim`, which updates leaves one operation at a time for all (foreach), or all in one (fused).

    Raises:
      ValueError: for a rule that PyTorch has not.
    """
    params, both = ([torch.from_numpy(array).to(DEVICE) for array in arrays] for arrays in optimizing_inputs(job))
    torch.set_num_threads(THREADS)
    turns = [[leaf[i] for leaf in both] for i in range(2)]
    kind: dict[str, Any] = {form: True}
    rule: torch.optim.Optimizer
    if job.rule == "sgd":
        rule = torch.optim.SGD(params, job.rate, **kind)
    elif job.rule == "adam":
        rule = torch.optim.Adam(params, job.rate, **kind)
    elif job.rule == "adamw":
        rule = torch.optim.AdamW(params, job.rate, weight_decay=job.decay, **kind)
    else:
        raise ValueError(f"PyTorch has no {job.rule}")

    def call(state: None) -> None:
        for t in range(job.steps):
            for param, grad in zip(params, turns[t % 2], strict=True):
                param.grad = grad
            rule.step()

    return Program(
        state=None,
        call=call,
        block=lambda _: synchronize(),
        error=lambda _: optimizing_error(job, [param.cpu().numpy() for param in params]),
        units=job.steps,
    )


def shuffle(job: Shuffling, form: str) -> Program:
    """The samplers of the loader, which give lists of rows, or a permutation."""
    from benchmarks.peers.torch_eager.shuffle import shuffle as program

    return program(job, form, DEVICE, synchronize)


def dispatch(job: Dispatching, form: str) -> Program:
    """One operation for a list of tensors."""
    torch.set_num_threads(THREADS)
    leaves = [torch.zeros(job.size, device=DEVICE) for _ in range(job.leaves)]

    def call(state: None) -> None:
        for _ in range(job.calls):
            torch._foreach_add_(leaves, 1.0)

    return Program(
        state=None,
        call=call,
        block=lambda _: synchronize(),
        error=lambda _: added_error(job, [leaf.cpu().numpy() for leaf in leaves]),
        units=job.calls,
    )


def accuracy(job: Reaching, form: str) -> Program:
    """The fast loop, one fold after another."""
    from benchmarks.peers.torch_eager.accuracy import accuracy as program

    features = {"digits": 64, "fashion-mnist": 784}[job.data]
    torch.set_num_threads(threads(Training((features, *job.hidden, 10), job.batch, job.batch)))
    return program(job, DEVICE)


def program(
    job: Training,
    inputs: Inputs,
    batches: Batches,
    step: Step,
    state: Any,
    params: Callable[[Any], Sequence[Tensor]],
    stages: dict[str, float] = {},  # noqa: B006
) -> Program:
    """A step in a loop over batches, as a program."""

    def call(at: tuple[int, Any]) -> tuple[int, Any]:
        epoch, state = at
        for i in range(job.epochs):
            for x, y in batches(epoch + i):
                state = step(state, x, y)
        return epoch + job.epochs, state

    return Program(
        state=(0, state),
        call=call,
        block=lambda _: synchronize(),
        error=lambda at: loop_error(job, inputs, arrays(params(at[1]))),
        units=job.steps,
        stages=stages,
    )


def network(job: Training, layers: Layers) -> nn.Sequential:
    """The network, with these parameters."""
    return torch_layout.network(job, layers, DEVICE)


def loss_of(job: Training, prediction: Tensor, target: Tensor) -> Any:
    """The mean over the batch."""
    if job.loss == "cross_entropy":
        return functional.cross_entropy(prediction, target)
    return (prediction - target).square().sum(-1).mean()


def step_of(job: Training, optimizer: torch.optim.Optimizer) -> Step:
    """A step that changes the model in place."""

    def step(model: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
        optimizer.zero_grad(set_to_none=True)
        loss_of(job, model(x), y).backward()
        optimizer.step()
        return model

    return step


def shuffled(job: Training, inputs: Inputs) -> Batches:
    """All rows in an epoch's order at once, then views of them."""
    data = tensors(inputs)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        rows = epoch_rows(job, epoch)
        if job.batch is None:
            return iter([data])
        order = np.concatenate([batch for batch in rows if batch is not None])
        return _split(job, data, torch.from_numpy(order).to(DEVICE))

    return batches


def _loaded(job: Training, inputs: Inputs) -> Batches:
    """A `DataLoader`, whose sampler gives the epoch's order."""
    x, y = tensors(inputs, "cpu")
    data = TensorDataset(x, y)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        rows = epoch_rows(job, epoch)
        if job.batch is None:
            yield x.to(DEVICE), y.to(DEVICE)
            return
        order = [int(row) for batch in rows if batch is not None for row in batch]
        for some_x, some_y in DataLoader(data, job.batch, sampler=order):
            yield some_x.to(DEVICE), some_y.to(DEVICE)

    return batches


def _split(job: Training, data: tuple[Tensor, Tensor], order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    x, y = (torch.split(array.index_select(0, order), job.batch or job.rows) for array in data)
    return zip(x, y, strict=True)


def tensors(inputs: Inputs, device: str = DEVICE) -> tuple[Tensor, Tensor]:
    """x and y; images with their channels first, labels as `cross_entropy` wants them."""
    given = np.moveaxis(inputs.x, -1, -3) if inputs.x.shape[-3:] == IMAGE else inputs.x
    x, y = torch.from_numpy(np.ascontiguousarray(given)).to(device), torch.from_numpy(inputs.y).to(device)
    return x, y if y.is_floating_point() else y.long()


def arrays(params: Sequence[Tensor]) -> list[np.ndarray]:
    """w and b of each layer in turn, w as (…, inputs, outputs)."""
    return torch_layout.from_torch([param.detach().cpu().numpy() for param in params])


def member_orders(job: Ensemble, epoch: int) -> Tensor:
    """The order of each member's rows, (members, rows), in an epoch."""
    generator = torch.Generator(DEVICE).manual_seed(epoch)
    return torch.rand(job.members, job.training.rows, generator=generator, device=DEVICE).argsort(-1)


def first_rows(job: Ensemble) -> np.ndarray:
    """The rows (members, steps, batch) of the first call."""
    orders = torch.cat([member_orders(job, epoch) for epoch in range(job.training.epochs)], 1)
    return orders.reshape(job.members, job.training.steps, -1).cpu().numpy()


def threads(job: Training, members: int = 1) -> int:
    """How many are worth it, where so many members take a step at once."""
    if job.images:
        return THREADS
    weights = sum(a * b for a, b in zip(job.widths[:-1], job.widths[1:], strict=True))
    return 1 if 6 * weights * (job.batch or job.rows) * members < FEW else THREADS


def synchronize() -> None:
    """Waits for the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
