"""The jobs, one type for each kind of work. Cases fill them in; every peer of a kind does the same job."""

from typing import NamedTuple


class Training(NamedTuple):
    """Train a network of dense layers with Adam on random examples, shuffled in every epoch."""

    widths: tuple[int, ...]  # input, hidden layers, output; for LeNet the input is what the convolutions return
    rows: int
    batch: int | None  # a divisor of rows; None for full-batch steps without shuffling
    activation: str = "relu"  # or "tanh"; none after the last layer
    loss: str = "cross_entropy"  # or "squared_error", summed over outputs; both are averaged over the batch
    epochs: int = 1  # in one call
    rate: float = 1e-3
    decay: float = 0.0  # weight decay; above 0 the optimizer is AdamW
    images: bool = False  # True puts LeNet's convolutions in front of the dense layers

    @property
    def steps(self) -> int:
        """Return the number of steps in one call."""
        return self.epochs * (self.rows // (self.batch or self.rows))


class Ensemble(NamedTuple):
    """Train several networks of one architecture, each with its own order of the data."""

    training: Training
    members: int
    own_data: bool = False  # every member has its own examples
    pairs: tuple[tuple[float, float], ...] = ()  # learning rate and weight decay of each member, if they differ


class DeepNetwork(NamedTuple):
    """Train `blocks` residual blocks x + relu(x w + b) with SGD on one batch; squared error, summed over outputs."""

    blocks: int
    width: int = 64
    batch: int = 32
    steps: int = 4  # in one call

    @property
    def rate(self) -> float:
        """Return a learning rate at which the loss falls at any depth; the squared gradient grows with the depth."""
        return 1e-2 / self.blocks


class Updates(NamedTuple):
    """Apply an optimizer's update only: two sets of gradients in turn, no network."""

    rule: str  # "sgd", "adam", "adamw" or "lion"; optax's defaults except for rate and decay (0 for Lion)
    leaves: int  # number of parameter arrays, all of the same size
    parameters: int = 2**20
    steps: int = 20  # in one call
    rate: float = 1e-3
    decay: float = 1e-2  # AdamW's weight decay


class Shuffle(NamedTuple):
    """Draw the rows of every batch of one epoch."""

    rows: int
    batch: int  # a divisor of rows

    @property
    def steps(self) -> int:
        """Return the number of batches in one call."""
        return self.rows // self.batch


class Calibration(NamedTuple):
    """Measure a limit of the machine: "gemm" (square matrices), "copy" (memory) or "launch" (an empty program)."""

    what: str
    size: int  # rows of the matrices, or number of elements
    dtype: str = "float32"  # "tf32" is float32 in memory, multiplied at lower precision


class FreshProcess(NamedTuple):
    """Start a process and wait until it exits: "import" the library, or "train" the digits from the command line."""

    what: str


class OptimizerComparison(NamedTuple):
    """Compare an optimizer with optax's Adam: "match" if it is the same, "diagnosis" if one formula differs."""

    what: str


class Dispatch(NamedTuple):
    """Add 1 to arrays so small that only the cost of the call remains."""

    leaves: int
    size: int = 8
    calls: int = 50  # calls to the jitted function in one call to the program


class TimeToAccuracy(NamedTuple):
    """Train until the mean held-out accuracy over the folds, evaluated after each epoch, reaches a target."""

    data: str  # "digits" or "fashion-mnist"
    target: float
    epochs: int  # the run fails if it has not reached the target by then
    folds: int | None  # k-fold over all examples; None for the data set's own training and test parts
    hidden: tuple[int, ...]
    batch: int
    rate: float  # Adam's learning rate
    decay: float = 0.0  # above 0 the optimizer is AdamW
    dropout: float = 0.0
    cosine: bool = False  # cosine decay of the learning rate to 0 over all epochs


class SettingSearch(NamedTuple):
    """Find the learning rate and the weight decay with the lowest validation loss, and stop bad trials early."""

    data: str  # "digits", "fashion-mnist", "breast_cancer", "wine" or "diabetes"
    trials: int
    rungs: tuple[int, ...]  # epochs after which trials are compared; a third of them continues
    hidden: tuple[int, ...]
    batch: int
    outputs: int = 10  # number of classes; 1 for a regression, whose loss is the squared error
    population: int = 64  # trials at the same time, for peers that train several
    rows: int | None = None  # number of rows, of which 60 % are trained on; None for all
    rates: tuple[float, float] = (1e-4, 1e-1)  # range of Adam's learning rate, log-uniform
    decays: tuple[float, float] = (1e-6, 1e-2)  # L2 penalty, added to the gradient of the weights but not of the biases
