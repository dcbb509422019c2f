"""Define the jobs, one type for each kind of work. Cases create jobs, and all peers run the same jobs."""

from typing import NamedTuple


class Training(NamedTuple):
    """Train a network of dense layers with Adam on random examples that are shuffled in each epoch."""

    widths: tuple[int, ...]  # input, hidden and output widths; LeNet's input width is the output of its convolutions
    rows: int
    batch: int | None  # a divisor of rows; None means full-batch steps without shuffling
    activation: str = "relu"  # or "tanh"; there is no activation after the last layer
    loss: str = "cross_entropy"  # or "squared_error", summed over outputs; both are averaged over the batch
    epochs: int = 1  # epochs in one call
    rate: float = 1e-3
    decay: float = 0.0  # weight decay of AdamW; above 0 only for members of a sweep
    images: bool = False  # True adds LeNet's convolutions before the dense layers

    @property
    def steps(self) -> int:
        """Return the number of steps in one call."""
        return self.epochs * (self.rows // (self.batch or self.rows))


class Ensemble(NamedTuple):
    """Train several networks with the same architecture, each with its own order of the data."""

    training: Training
    members: int
    own_data: bool = False  # True if each member has its own examples
    pairs: tuple[tuple[float, float], ...] = ()  # rate and decay of each member; () means the values in `training`


class DeepNetwork(NamedTuple):
    """Train residual blocks x + relu(x w + b) with SGD on one batch, with the squared error summed over outputs."""

    blocks: int
    width: int = 64
    batch: int = 32
    steps: int = 4  # steps in one call

    @property
    def rate(self) -> float:
        """Return a rate that decreases the loss at any depth; the squared gradient grows with the depth."""
        return 1e-2 / self.blocks


class Updates(NamedTuple):
    """Apply only an optimizer's update, with two alternating sets of gradients and without a network."""

    rule: str  # "sgd", "adam", "adamw" or "lion", with optax's defaults except for rate and decay (0 for Lion)
    leaves: int  # number of parameter arrays, all of the same size
    parameters: int = 2**20
    steps: int = 20  # updates in one call
    rate: float = 1e-3
    decay: float = 1e-2  # weight decay of AdamW


class Shuffle(NamedTuple):
    """Draw the rows of all batches of one epoch."""

    rows: int
    batch: int  # a divisor of rows

    @property
    def steps(self) -> int:
        """Return the number of batches in one call."""
        return self.rows // self.batch


class Calibration(NamedTuple):
    """Measure a limit of the machine: "gemm" (square matrices), "copy" (memory) or "launch" (a tiny program)."""

    what: str
    size: int  # rows of the matrices, or number of elements
    dtype: str = "float32"  # "tf32": float32 in memory, multiplied at lower precision


class FreshProcess(NamedTuple):
    """Start a process and wait until it exits: "import" the library, or "train" on the digits with its command."""

    what: str


class OptimizerComparison(NamedTuple):
    """Compare an optimizer with optax's Adam: "match" if both are equal, "diagnosis" if one formula differs."""

    what: str


class Dispatch(NamedTuple):
    """Add 1 to arrays that are so small that only the overhead of the call remains."""

    leaves: int
    size: int = 8
    calls: int = 50  # calls of the jitted function in one call of the program


class TimeToAccuracy(NamedTuple):
    """Train until the held-out accuracy after an epoch, averaged over the folds, reaches a target."""

    data: str  # "digits" or "fashion-mnist"
    target: float
    epochs: int  # the run fails if it does not reach the target within this many epochs
    folds: int | None  # k-fold over all examples; None means the data set's own training and test parts
    hidden: tuple[int, ...]
    batch: int
    rate: float  # Adam's learning rate
    decay: float = 0.0  # weight decay; if above 0, the optimizer is AdamW
    dropout: float = 0.0
    cosine: bool = False  # cosine decay of the learning rate to 0 over all epochs


class SettingSearch(NamedTuple):
    """Find the learning rate and weight decay with the lowest validation loss, and stop bad trials early."""

    data: str  # "digits", "fashion-mnist", "breast_cancer", "wine" or "diabetes"
    trials: int
    rungs: tuple[int, ...]  # numbers of epochs after which trials are compared and the best third continues
    hidden: tuple[int, ...]
    batch: int
    outputs: int = 10  # number of classes; 1 for a regression with squared error
    population: int = 64  # number of simultaneous trials, for peers that train several at once
    rows: int | None = None  # number of rows, with 60 % for training; None means all
    rates: tuple[float, float] = (1e-4, 1e-1)  # range of Adam's learning rate, drawn log-uniformly
    decays: tuple[float, float] = (1e-6, 1e-2)  # range of the L2 penalty, on weights but not on biases
