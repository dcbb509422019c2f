"""Time to a target with PyTorch: networks of all folds, an epoch of each in turn, looked at after each."""

import math
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.jobs.definitions import Program, Reaching
from benchmarks.jobs.time_to_accuracy import Examples, Reached, examples, figures, reaching_error


class Fold(NamedTuple):
    """A network at its training."""

    model: nn.Sequential
    optimizer: torch.optim.Optimizer
    schedule: Any  # None without
    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]


def accuracy(job: Reaching, device: str) -> Program:
    """The loop over batches by hand, views of shuffled tensors, and a fused optimizer."""
    given = examples(job)
    parts = [_parts(given, f, device) for f in range(len(given.folds.train.sizes))]

    def call(at: Reached) -> Reached:
        torch.manual_seed(at.seed)
        folds = [_fold(job, *part) for part in parts]
        epoch, mean = 0, 0.0
        while epoch < job.epochs and mean < job.target:
            for fold in folds:
                _epoch(job, fold)
            accuracies = [_right(fold) for fold in folds]
            epoch, mean = epoch + 1, sum(accuracies) / len(folds)
        return Reached(at.seed + 1, (*at.runs, (epoch, mean)), accuracies, [fold.model for fold in folds])

    def error(at: Reached) -> float:
        return reaching_error(job, given, at, [_arrays(model) for model in at.layers])

    return Program(
        state=Reached(0, (), None, None),
        call=call,
        block=lambda _: None,  # each epoch's accuracy was waited for
        error=error,
        units=1,
        figures=partial(figures, job),
    )


def _parts(given: Examples, f: int, device: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """x and y to train on, and held out."""
    tables = [rows.table[f, : rows.sizes[f]] for rows in given.folds]
    x, y = torch.from_numpy(given.x).to(device), torch.from_numpy(given.y).long().to(device)
    train, held_out = (torch.from_numpy(np.asarray(rows, np.int64)).to(device) for rows in tables)
    return (x[train], y[train]), (x[held_out], y[held_out])


def _fold(job: Reaching, train: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor]) -> Fold:
    """A network before its first step, with parameters of the size that ours has."""
    x = train[0]
    widths = (x.shape[1], *job.hidden, 10)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        dense = nn.Linear(inputs, outputs, device=x.device)
        last = len(layers) == 3 * len(job.hidden)
        nn.init.kaiming_normal_(dense.weight, nonlinearity="linear" if last else "relu")
        nn.init.zeros_(dense.bias)
        layers += [dense, nn.ReLU(), nn.Dropout(job.dropout) if job.dropout else nn.Identity()]
    model = nn.Sequential(*layers[:-2])
    kind = torch.optim.AdamW if job.decay else torch.optim.Adam
    optimizer = kind(model.parameters(), job.rate, weight_decay=job.decay, fused=True)
    steps = math.ceil(len(x) / job.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, job.epochs * steps) if job.cosine else None
    return Fold(model, optimizer, schedule, train, held_out)


def _epoch(job: Reaching, fold: Fold) -> None:
    fold.model.train()
    order = torch.randperm(len(fold.train[0]), device=fold.train[0].device)
    for some_x, some_y in zip(*(torch.split(array[order], job.batch) for array in fold.train), strict=True):
        fold.optimizer.zero_grad(set_to_none=True)
        loss: Any = functional.cross_entropy(fold.model(some_x), some_y)
        loss.backward()
        fold.optimizer.step()
        if fold.schedule is not None:
            fold.schedule.step()


def _right(fold: Fold) -> float:
    """The share of the examples held out that it gets right."""
    fold.model.eval()
    x, y = fold.held_out
    with torch.inference_mode():
        return float((fold.model(x).argmax(-1) == y).double().mean())


def _arrays(model: nn.Module) -> list[np.ndarray]:
    """w (inputs, outputs) and b of each layer in turn."""
    return [(param.mT if param.ndim == 2 else param).detach().cpu().numpy() for param in model.parameters()]
