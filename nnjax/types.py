"""The contract: the types that carry everything in nnjax, and nothing more.

A network is a `Layer`, two pure functions over pytrees. A loss and an optimizer are pure functions too. `Data` is
what a network is trained on, `TrainState` all that a training step reads and writes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import optax
from jax import Array
from jax.typing import DTypeLike

PyTree: TypeAlias = Any
Key: TypeAlias = Array  # a key of jax.random.key
Params: TypeAlias = PyTree  # the trained leaves
State: TypeAlias = PyTree  # the untrained ones (BatchNorm statistics); () where there are none
OptState: TypeAlias = PyTree


class Init(Protocol):
    """`(key, x) -> (params, state)`; reads only shape and dtype of `x`, an array or a `jax.ShapeDtypeStruct`."""

    def __call__(self, key: Key, x: PyTree, /) -> tuple[Params, State]: ...


class Apply(Protocol):
    """`(params, state, x, *, train, key=None) -> (y, state)`; the first axis of `x` is the batch."""

    def __call__(
        self, params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]: ...


class Layer(NamedTuple):
    """A network, or a part of one."""

    name: str  # "dense(64)": for tables and for error messages
    init: Init
    apply: Apply


LayerLike: TypeAlias = Layer | Callable[[Array], Array]  # a plain function is a layer without parameters
Loss: TypeAlias = Callable[[PyTree, PyTree], Array]  # (prediction, target) -> one number per example, (batch,)
Metric: TypeAlias = Callable[[PyTree, PyTree, Array | None], Array]  # (prediction, target, weights) -> a number
Initializer: TypeAlias = Callable[[Key, tuple[int, ...], DTypeLike], Array]  # as those of jax.nn.initializers
Optimizer: TypeAlias = optax.GradientTransformation
Schedule: TypeAlias = Callable[[Array], Array | float]  # step, from 0 -> learning rate
ScalarOrSchedule: TypeAlias = float | Array | Schedule


class Data(NamedTuple):
    """Examples along the leading axis of every leaf."""

    x: PyTree
    y: PyTree
    weights: Array | None = None  # of the examples in the loss; None weighs all alike


class TrainState(NamedTuple):
    """All that a training step reads and writes."""

    step: Array  # int32, steps done
    params: Params
    state: State
    opt_state: OptState
    key: Key  # the run's own key; it never changes, draws fold in their purpose and the step
