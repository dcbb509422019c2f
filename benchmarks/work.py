"""What peers are given to do, and what they make of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Layers = list[
    tuple[np.ndarray, np.ndarray]
]  # w (inputs, outputs), b (outputs,) of each; with a leading axis of members


class Training(NamedTuple):
    """Train a network of dense layers with Adam, on random examples that are shuffled anew in each epoch."""

    widths: tuple[int, ...]  # of input, hidden layers, output
    rows: int
    batch: int | None  # a divisor of rows; None for all rows in stored order
    activation: str = "relu"  # or "tanh"; none after the last layer
    loss: str = "cross_entropy"  # or "squared_error", summed over outputs; the mean over the batch of either
    epochs: int = 1  # of one call
    rate: float = 1e-3

    @property
    def steps(self) -> int:
        """Of one call."""
        return self.epochs * (self.rows // (self.batch or self.rows))


class Ensemble(NamedTuple):
    """Train so many networks of one shape, each in an order of its own."""

    training: Training
    members: int
    own: bool = False  # each has examples of its own


class Optimizing(NamedTuple):
    """Update parameters with the same gradients again and again: nothing but the optimizer."""

    rule: str  # "sgd", "adam", "adamw" or "lion", with optax's defaults but for rate and decay, which is 0 for Lion
    leaves: int  # arrays that the parameters are in, all of the same size
    parameters: int = 2**20
    steps: int = 20  # of one call
    rate: float = 1e-3
    decay: float = 1e-2  # of AdamW


class Shuffling(NamedTuple):
    """Draw the rows of every batch of one epoch."""

    rows: int
    batch: int  # a divisor of rows

    @property
    def steps(self) -> int:
        """Of one call."""
        return self.rows // self.batch


class Calibrating(NamedTuple):
    """Find a limit of the machine: "gemm" of square matrices, "copy" of memory, "launch" of a program."""

    what: str
    size: int  # rows of the matrices; numbers to copy or to launch with
    dtype: str = "float32"


class Inputs(NamedTuple):
    """The same numbers for all peers."""

    layers: Layers
    x: np.ndarray
    y: np.ndarray


class Program(NamedTuple):
    """A peer at its work. All of it is called with the state of the call before, which it may overwrite."""

    state: Any  # before the first call
    call: Callable[[Any], Any]  # one call: state -> state
    block: Callable[[Any], object]  # waits until a state is there
    error: Callable[[Any], float]  # of the state after the first call, against float64; 1 is what rounding may make
    units: int  # of work in a call
    stages: dict[str, float] = {}  # noqa: RUF012  seconds: trace, lower, compile, as far as they are apart
    memory: dict[str, int] = {}  # noqa: RUF012  bytes
    figures: dict[str, float] = {}  # noqa: RUF012  what a case says besides
    flops: int = 0  # operations of a unit of work, told by one of the peers, for all do the same work
    bytes: int = 0  # that a unit must read and write at the least


def training_inputs(job: Training, members: int | None = None, *, own: bool = False) -> Inputs:
    """Random parameters of He's size, and random examples.

    Args:
      job: whose shapes.
      members: networks of an ensemble, each with parameters of its own; None for one, without an axis of members.
      own: every member has examples of its own.
    """
    rng = np.random.default_rng(0)
    lead = () if members is None else (members,)
    layers = []
    for inputs, outputs in zip(job.widths[:-1], job.widths[1:], strict=True):
        w = rng.normal(0, np.sqrt(2 / inputs), (*lead, inputs, outputs)).astype(np.float32)
        layers.append((w, rng.normal(0, 0.1, (*lead, outputs)).astype(np.float32)))
    shape = (*(lead if own else ()), job.rows)
    x = rng.normal(size=(*shape, job.widths[0])).astype(np.float32)
    if job.loss == "cross_entropy":
        return Inputs(layers, x, rng.integers(0, job.widths[-1], shape).astype(np.int32))
    return Inputs(layers, x, rng.normal(size=(*shape, job.widths[-1])).astype(np.float32))


def optimizing_inputs(job: Optimizing) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Parameters and gradients."""
    rng = np.random.default_rng(0)
    params, grads = rng.normal(size=(2, job.leaves, job.parameters // job.leaves)).astype(np.float32)
    return list(params), list(grads)
