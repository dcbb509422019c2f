"""Train one network in eager mode, with a `DataLoader` or views of shuffled tensors."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.jobs.definitions import Training
from benchmarks.jobs.inputs import Inputs, training_inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.python_loop import epoch_rows
from benchmarks.peers._torch.device import ALL_THREADS, DEVICE, useful_threads
from benchmarks.peers._torch.loop import Batches, batch_loop, module_step, shuffled_batches
from benchmarks.peers._torch.model import make_network, to_tensors


def training(job: Training, form: str) -> Program:
    """Train with `torch.optim.Adam` in a Python loop over the batches.

    The form "naive" is the loop of the tutorial with a `DataLoader`. "fast" uses views of shuffled tensors, a fused
    Adam, and one thread for small products.
    """
    inputs = training_inputs(job)
    torch.set_num_threads(useful_threads(job) if form == "fast" else ALL_THREADS)
    model = make_network(job, inputs.layers)
    optimizer = torch.optim.Adam(model.parameters(), job.rate, fused=True if form == "fast" else None)
    return batch_loop(
        job,
        inputs,
        module_step(job, optimizer),
        model,
        batches=shuffled_batches(job, inputs) if form == "fast" else _loader_batches(job, inputs),
        params=lambda model: list(model.parameters()),
    )


def _loader_batches(job: Training, inputs: Inputs) -> Batches:
    """Return a function that yields the batches of an epoch from a `DataLoader`, in the order of `epoch_rows`."""
    x, y = to_tensors(inputs, "cpu")
    data = TensorDataset(x, y)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        if job.batch is None:
            yield x.to(DEVICE), y.to(DEVICE)
            return
        order = [int(row) for rows in epoch_rows(job, epoch) if rows is not None for row in rows]
        for batch_x, batch_y in DataLoader(data, job.batch, sampler=order):
            yield batch_x.to(DEVICE), batch_y.to(DEVICE)

    return batches
