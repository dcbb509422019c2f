"""Draw the initial parameters, examples and gradients, which are the same for all peers."""

from typing import NamedTuple

import numpy as np

from benchmarks.jobs.definitions import DeepNetwork, Training, Updates

IMAGE = (28, 28, 1)
CONVOLUTIONS = ((5, 5, 1, 6), (5, 5, 6, 16))  # each followed by activation and 2 × 2 max pooling
PADDINGS = (2, 0)  # padding on each side in the first ("SAME") and second ("VALID") convolution
FEATURES = 5 * 5 * 16  # number of features after the convolutions

Layers = list[tuple[np.ndarray, np.ndarray]]  # w (inputs, outputs) and b (outputs,); ensembles add a leading axis


class Inputs(NamedTuple):
    """Initial parameters and examples, which are the same for all peers."""

    layers: Layers
    x: np.ndarray
    y: np.ndarray


def training_inputs(job: Training, members: int | None = None, *, own_data: bool = False) -> Inputs:
    """Draw He-normal weights, biases of scale 0.1, and random examples.

    Args:
      job: the job, which determines the shapes.
      members: number of networks, each with its own parameters; None means one network without a members axis.
      own_data: if True, draw separate examples for each member.
    """
    rng = np.random.default_rng(0)
    lead = () if members is None else (members,)
    layers = []
    for shape in CONVOLUTIONS if job.images else ():
        w = rng.normal(0, np.sqrt(2 / np.prod(shape[:3])), (*lead, *shape)).astype(np.float32)
        layers.append((w, rng.normal(0, 0.1, (*lead, shape[3])).astype(np.float32)))
    for inputs, outputs in zip(job.widths[:-1], job.widths[1:], strict=True):
        w = rng.normal(0, np.sqrt(2 / inputs), (*lead, inputs, outputs)).astype(np.float32)
        layers.append((w, rng.normal(0, 0.1, (*lead, outputs)).astype(np.float32)))
    rows = (*(lead if own_data else ()), job.rows)
    x = rng.normal(size=(*rows, *(IMAGE if job.images else job.widths[:1]))).astype(np.float32)
    if job.loss == "cross_entropy":
        return Inputs(layers, x, rng.integers(0, job.widths[-1], rows).astype(np.int32))
    return Inputs(layers, x, rng.normal(size=(*rows, job.widths[-1])).astype(np.float32))


def deep_network_inputs(job: DeepNetwork) -> Inputs:
    """Draw stacked parameters, w (blocks, width, width) and b (blocks, width), and one batch.

    The weights have scale 1 / blocks. With 1 / √blocks, the positive mean of relu would add up without bound.
    """
    rng = np.random.default_rng(0)
    w = rng.normal(0, job.width**-0.5 / job.blocks, (job.blocks, job.width, job.width)).astype(np.float32)
    b = rng.normal(0, 0.1 / job.blocks, (job.blocks, job.width)).astype(np.float32)
    x, y = rng.normal(size=(2, job.batch, job.width)).astype(np.float32)
    return Inputs([(w, b)], x, y)


def update_inputs(job: Updates) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Draw the parameters (size,) of each array and their gradients (2, size) for even and odd steps."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(3, job.leaves, job.parameters // job.leaves)).astype(np.float32)
    return list(numbers[0]), list(numbers[1:].swapaxes(0, 1))
