"""What peers are given to do, and what they make of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

IMAGE = (28, 28, 1)
CONVOLUTIONS = ((5, 5, 1, 6), (5, 5, 6, 16))  # "SAME", then "VALID"; after each, activation and 2 × 2 maxima
PADDINGS = (2, 0)  # of the two, on each side
FEATURES = 5 * 5 * 16  # what they give

Layers = list[
    tuple[np.ndarray, np.ndarray]
]  # w (inputs, outputs), b (outputs,) of each; with a leading axis of members


class Training(NamedTuple):
    """Train a network of dense layers with Adam, on random examples that are shuffled anew in each epoch."""

    widths: tuple[int, ...]  # of input, hidden layers, output; with images, of what the convolutions give
    rows: int
    batch: int | None  # a divisor of rows; None for all rows in stored order
    activation: str = "relu"  # or "tanh"; none after the last layer
    loss: str = "cross_entropy"  # or "squared_error", summed over outputs; the mean over the batch of either
    epochs: int = 1  # of one call
    rate: float = 1e-3
    decay: float = 0.0  # above 0 it is AdamW
    images: bool = False  # LeNet: its convolutions before the dense layers

    @property
    def steps(self) -> int:
        """Of one call."""
        return self.epochs * (self.rows // (self.batch or self.rows))


class Ensemble(NamedTuple):
    """Train so many networks of one shape, each in an order of its own."""

    training: Training
    members: int
    own: bool = False  # each has examples of its own
    pairs: tuple[tuple[float, float], ...] = ()  # each member's rate and decay, where they differ


class Deepening(NamedTuple):
    """Train x + relu(x w + b), so many times over, with SGD on one batch: the squared error, summed over outputs."""

    blocks: int
    width: int = 64
    batch: int = 32
    steps: int = 4  # of one call

    @property
    def rate(self) -> float:
        """So small that the loss falls slowly at any depth, for the gradient's square grows with the blocks."""
        return 1e-2 / self.blocks


class Optimizing(NamedTuple):
    """Update parameters with two sets of gradients in turn: nothing but the optimizer."""

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
    dtype: str = "float32"  # "tf32": float32 in memory, multiplied with fewer digits


class Starting(NamedTuple):
    """Start a process and wait for its end: "import" of the library, or "train", the digits by its command."""

    what: str


class Comparing(NamedTuple):
    """Hold an optimizer against optax's Adam: "match", the same; "diagnosis", one that differs in one place."""

    what: str


class Dispatching(NamedTuple):
    """Add 1 to arrays that take no time, so that what remains is the call."""

    leaves: int
    size: int = 8
    calls: int = 50  # of one call of the program


class Reaching(NamedTuple):
    """Train until a share of the examples held out is right: looked at after each epoch, in the mean over folds."""

    data: str  # "digits" or "fashion-mnist"
    target: float
    epochs: int  # after which it has failed
    folds: int | None  # of all examples; None for the training part, and the fixed test part held out
    hidden: tuple[int, ...]
    batch: int
    rate: float  # Adam's
    decay: float = 0.0  # of weights: AdamW
    dropout: float = 0.0
    cosine: bool = False  # the rate falls to 0 over all epochs


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
    figures: Callable[[Any], dict[str, float]] = lambda _: {}  # of the state after the last call: what else to say
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
    for shape in CONVOLUTIONS if job.images else ():
        w = rng.normal(0, np.sqrt(2 / np.prod(shape[:3])), (*lead, *shape)).astype(np.float32)
        layers.append((w, rng.normal(0, 0.1, (*lead, shape[3])).astype(np.float32)))
    for inputs, outputs in zip(job.widths[:-1], job.widths[1:], strict=True):
        w = rng.normal(0, np.sqrt(2 / inputs), (*lead, inputs, outputs)).astype(np.float32)
        layers.append((w, rng.normal(0, 0.1, (*lead, outputs)).astype(np.float32)))
    rows = (*(lead if own else ()), job.rows)
    x = rng.normal(size=(*rows, *(IMAGE if job.images else job.widths[:1]))).astype(np.float32)
    if job.loss == "cross_entropy":
        return Inputs(layers, x, rng.integers(0, job.widths[-1], rows).astype(np.int32))
    return Inputs(layers, x, rng.normal(size=(*rows, job.widths[-1])).astype(np.float32))


def depth_inputs(job: Deepening) -> Inputs:
    """Parameters of all blocks as one layer, w (blocks, width, width) and b (blocks, width), and one batch.

    Each block adds 1 / blocks of what it is given: with 1 / √blocks, what relu adds on the mean would grow beyond
    bounds.
    """
    rng = np.random.default_rng(0)
    w = rng.normal(0, job.width**-0.5 / job.blocks, (job.blocks, job.width, job.width)).astype(np.float32)
    b = rng.normal(0, 0.1 / job.blocks, (job.blocks, job.width)).astype(np.float32)
    x, y = rng.normal(size=(2, job.batch, job.width)).astype(np.float32)
    return Inputs([(w, b)], x, y)


def optimizing_inputs(job: Optimizing) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Parameters (size,) of each leaf, and gradients (2, size): of the even steps and of the odd ones."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(3, job.leaves, job.parameters // job.leaves)).astype(np.float32)
    return list(numbers[0]), list(numbers[1:].swapaxes(0, 1))
