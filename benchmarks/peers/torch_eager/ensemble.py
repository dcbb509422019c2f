"""Train many networks, dense or convolutional, one after another."""

import numpy as np
import torch

from benchmarks.jobs.definitions import Ensemble
from benchmarks.jobs.inputs import training_inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference import ensemble_error
from benchmarks.peers._torch.device import synchronize, useful_threads
from benchmarks.peers._torch.loop import first_member_rows, member_orders, module_step, split_batches
from benchmarks.peers._torch.model import make_network, to_arrays, to_tensors

MOST_MEMBERS = 64


def ensemble(job: Ensemble, form: str) -> Program:
    """Train the members one after another, with a fused Adam on views of shuffled tensors.

    Raises:
      ValueError: if there are more than `MOST_MEMBERS` members.
    """
    if job.members > MOST_MEMBERS:
        raise ValueError(f"{job.members} members in a loop take too long; at most {MOST_MEMBERS} are measured")
    member_job = job.training
    inputs = training_inputs(member_job, job.members, own_data=job.own_data)
    torch.set_num_threads(useful_threads(member_job))
    x, y = to_tensors(inputs)
    models = [make_network(member_job, [(w[i], b[i]) for w, b in inputs.layers]) for i in range(job.members)]
    optimizers = [torch.optim.Adam(model.parameters(), member_job.rate, fused=True) for model in models]
    steps = [module_step(member_job, optimizer) for optimizer in optimizers]

    def call(epoch: int) -> int:
        for _ in range(member_job.epochs):
            orders = member_orders(job, epoch)
            for i, (model, step, order) in enumerate(zip(models, steps, orders, strict=True)):
                member_data = (x[i], y[i]) if job.own_data else (x, y)
                for batch_x, batch_y in split_batches(member_job, member_data, order):
                    step(model, batch_x, batch_y)
            epoch += 1
        return epoch

    def stacked_arrays() -> list[np.ndarray]:
        members = [to_arrays(list(model.parameters())) for model in models]
        return [np.stack(arrays) for arrays in zip(*members, strict=True)]

    return Program(
        state=0,
        call=call,
        block=lambda _: synchronize(),
        error=lambda _: ensemble_error(job, inputs, first_member_rows(job), stacked_arrays()),
        units=member_job.steps * job.members,
    )


conv_ensemble = ensemble
