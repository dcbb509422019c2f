"""Define the types that all parts of nnjax share.

A network is a `Layer`, two pure functions on pytrees. A loss is a pure function, and an optimizer is optax's pair of
pure functions. `Data` holds examples, and `TrainState` holds everything that a training step reads and writes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, Protocol, TypeAlias

import optax
from jax import Array
from jax.typing import DTypeLike

PyTree: TypeAlias = Any
Key: TypeAlias = Array  # random key, from jax.random.key
Params: TypeAlias = PyTree  # trained arrays, or () if there are none
State: TypeAlias = PyTree  # untrained arrays, such as batch_norm's statistics, or ()
OptState: TypeAlias = PyTree


class Init(Protocol):
    """Initialise a layer: `(key, x) -> (params, state)`.

    Only the shapes and dtypes of `x` matter, so its leaves may be arrays or `jax.ShapeDtypeStruct`s.
    """

    def __call__(self, key: Key, x: PyTree, /) -> tuple[Params, State]: ...


class Apply(Protocol):
    """Apply a layer: `(params, state, x, *, train, key=None) -> (y, state)`.

    The first axis of `x` is the batch. Layers that draw random numbers in training, such as dropout, use `key`.
    """

    def __call__(
        self, params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]: ...


class Layer(NamedTuple):
    """A network or one of its layers."""

    name: str  # name such as "dense(64)" for tables and error messages
    init: Init
    apply: Apply

    def __call__(self, *_: Any) -> NoReturn:
        """Raise TypeError with the correct call, because layers of other libraries are callable."""
        raise TypeError(
            f"{self.name}: a layer is not called; use params, state = net.init(key, x) once, and then "
            "y, state = net.apply(params, state, x, train=False)"
        )


LayerLike: TypeAlias = Layer | Callable[[Array], Array]  # a plain function is a layer without parameters
Loss: TypeAlias = Callable[[PyTree, PyTree], Array]  # (prediction, target) -> losses of shape (batch,)
Metric: TypeAlias = Callable[[PyTree, PyTree, Array | None], Array]  # (prediction, target, weights) -> score
Log: TypeAlias = dict[str, Array]  # scalars of a training step, or scores of an evaluation, by name
Initializer: TypeAlias = Callable[[Key, tuple[int, ...], DTypeLike], Array]  # same signature as jax.nn.initializers
Optimizer: TypeAlias = optax.GradientTransformation
Schedule: TypeAlias = Callable[[Array], Array | float]  # number of steps already taken -> learning rate
ScalarOrSchedule: TypeAlias = float | Array | Schedule


class Data(NamedTuple):
    """Inputs and targets of examples. The first axis of every array indexes the examples."""

    x: PyTree  # inputs
    y: PyTree  # targets
    weights: Array | None = None  # (n,), per-example loss weights; None means equal weights


class Objective(Protocol):
    """Compute the loss of each example: `(params, state, batch, *, train, key) -> (losses, state, log)`.

    `losses` has shape (batch,); a training step minimises their mean, weighted by `batch.weights`. `log` holds
    further scalars to record. In a run without data, `batch` is `Data((), ())`, and there may be any number of losses.
    """

    def __call__(
        self, params: Params, state: State, batch: Any, /, *, train: bool, key: Key
    ) -> tuple[Array, State, Log]: ...


class TrainState(NamedTuple):
    """Everything that a training step reads and writes."""

    step: Array  # (), int32, number of steps already taken
    params: Params
    state: State
    opt_state: OptState
    key: Key  # key of the run, which never changes; each random draw folds in its purpose and the step


class Trainable(Protocol):
    """A run for `train.fit` and related functions: a `train.Run`, or any hashable object with these four attributes.

    `step` increments `ts.step`, leaves `ts.key` unchanged, and derives its random numbers from both. The logs
    contain at least `"loss"`. In a run without data, `data` and `batch` are `Data((), ())`.
    """

    @property
    def batch_size(self) -> int | None: ...

    def init(self, key: Key, data: Any) -> TrainState: ...

    def step(self, ts: TrainState, batch: Any) -> tuple[TrainState, Log]: ...

    def evaluate(self, ts: TrainState, data: Any) -> Log: ...
