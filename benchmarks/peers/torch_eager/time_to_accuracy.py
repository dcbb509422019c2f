"""Train until the target accuracy is reached: alternately train all folds for one epoch and evaluate them."""

import math
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.jobs.definitions import TimeToAccuracy, Training
from benchmarks.jobs.program import Program
from benchmarks.jobs.time_to_accuracy import Examples, Runs, accuracy_error, accuracy_figures, fold_examples
from benchmarks.peers._torch.device import DEVICE, useful_threads

XY = tuple[Tensor, Tensor]


class Fold(NamedTuple):
    """The state of one fold during training: its network, optimizer and data."""

    model: nn.Sequential
    optimizer: torch.optim.Optimizer
    schedule: Any  # None means a constant learning rate
    train: XY
    held_out: XY


def time_to_accuracy(job: TimeToAccuracy, form: str) -> Program:
    """Train with a Python loop over views of shuffled tensors and a fused optimizer.

    Raises:
      ValueError: if the data set is not on this machine.
    """
    examples = fold_examples(job)
    batch_job = Training((examples.x.shape[1], *job.hidden, 10), job.batch, job.batch)
    torch.set_num_threads(useful_threads(batch_job))
    fold_data = [_fold_data(examples, i) for i in range(len(examples.folds.train.sizes))]

    def call(runs: Runs) -> Runs:
        torch.manual_seed(runs.seed)
        folds = [_make_fold(job, train, held_out) for train, held_out in fold_data]
        epoch, mean = 0, 0.0
        while epoch < job.epochs and mean < job.target:
            for fold in folds:
                _train_epoch(job, fold)
            accuracies = [_accuracy(fold) for fold in folds]
            epoch, mean = epoch + 1, sum(accuracies) / len(folds)
        return Runs(runs.seed + 1, (*runs.ends, (epoch, mean)), accuracies, [fold.model for fold in folds])

    return Program(
        state=Runs(0, (), None, None),
        call=call,
        block=lambda _: None,  # not needed: computing the accuracy waits for each epoch
        error=lambda runs: accuracy_error(job, examples, runs, [_to_arrays(model) for model in runs.networks]),
        units=1,
        figures=partial(accuracy_figures, job),
    )


def _fold_data(examples: Examples, i: int) -> tuple[XY, XY]:
    """Return x and y of the training rows, and of the held-out rows."""
    tables = [rows.table[i, : rows.sizes[i]] for rows in examples.folds]
    x, y = torch.from_numpy(examples.x).to(DEVICE), torch.from_numpy(examples.y).long().to(DEVICE)
    train, held_out = (torch.from_numpy(np.asarray(rows, np.int64)).to(DEVICE) for rows in tables)
    return (x[train], y[train]), (x[held_out], y[held_out])


def _make_fold(job: TimeToAccuracy, train: XY, held_out: XY) -> Fold:
    """Return a fold with a new network, whose parameters have the same scale as nnjax's."""
    x = train[0]
    widths = (x.shape[1], *job.hidden, 10)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        dense = nn.Linear(inputs, outputs, device=x.device)
        is_last = len(layers) == 3 * len(job.hidden)
        nn.init.kaiming_normal_(dense.weight, nonlinearity="linear" if is_last else "relu")
        nn.init.zeros_(dense.bias)
        layers += [dense, nn.ReLU(), nn.Dropout(job.dropout) if job.dropout else nn.Identity()]
    model = nn.Sequential(*layers[:-2])
    make_optimizer = torch.optim.AdamW if job.decay else torch.optim.Adam
    optimizer = make_optimizer(model.parameters(), job.rate, weight_decay=job.decay, fused=True)
    steps = math.ceil(len(x) / job.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, job.epochs * steps) if job.cosine else None
    return Fold(model, optimizer, schedule, train, held_out)


def _train_epoch(job: TimeToAccuracy, fold: Fold) -> None:
    fold.model.train()
    order = torch.randperm(len(fold.train[0]), device=fold.train[0].device)
    for x, y in zip(*(torch.split(array[order], job.batch) for array in fold.train), strict=True):
        fold.optimizer.zero_grad(set_to_none=True)
        loss: Any = functional.cross_entropy(fold.model(x), y)
        loss.backward()
        fold.optimizer.step()
        if fold.schedule is not None:
            fold.schedule.step()


def _accuracy(fold: Fold) -> float:
    """Return the accuracy on the held-out examples."""
    fold.model.eval()
    x, y = fold.held_out
    with torch.inference_mode():
        return float((fold.model(x).argmax(-1) == y).double().mean())


def _to_arrays(model: nn.Module) -> list[np.ndarray]:
    """Return w (inputs, outputs) and b of each layer, in order."""
    return [(param.mT if param.ndim == 2 else param).detach().cpu().numpy() for param in model.parameters()]
