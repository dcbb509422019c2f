"""Create the network, the optimizer and the compiled programs of a scikit-learn estimator.

Equal arguments return the same objects, so programs are compiled only once for all clones of an estimator.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from nnjax import nn, train
from nnjax.data import n_rows, take_rows
from nnjax.types import Data, Key, Layer, Optimizer, Params, PyTree, State, TrainState

Network = Layer | Callable[[int], Layer] | None
MakeOptimizer = Optimizer | Callable[[float], Optimizer]


def deduplicate(function: Any) -> Any:
    """Return the same object for equal partial functions, because JAX would compile again for each copy by `clone`."""
    if not isinstance(function, partial):
        return function
    try:
        return _partial(function.func, function.args, tuple(sorted(function.keywords.items())))
    except TypeError:  # arguments that cannot be hashed
        return function


@lru_cache
def _partial(function: Callable[..., Any], arguments: tuple[Any, ...], keywords: tuple[tuple[str, Any], ...]) -> Any:
    return partial(function, *arguments, **dict(keywords))


@lru_cache
def make_network(net: Network, hidden: tuple[int, ...], outputs: int, gaussian: bool) -> Layer:
    """Return the network, with two outputs per target if it is Gaussian; equal arguments return the same object."""
    outputs = 2 * outputs if gaussian else outputs
    if not isinstance(net, Layer):
        net = nn.mlp(hidden, outputs) if net is None else net(outputs)
    net = nn.serial(net, partial(_check_outputs, outputs=outputs))
    return nn.serial(net, _halves) if gaussian else net


def _halves(y: Array) -> Any:
    return tuple(jnp.split(y, 2, -1))


def _check_outputs(y: Array, *, outputs: int) -> Array:
    if y.shape[1:] != (outputs,):
        raise ValueError(f"the network must return (n, {outputs}) for these targets, got {y.shape}")
    return y


@lru_cache
def make_optimizer(optimizer: MakeOptimizer, learning_rate: float) -> Optimizer:
    """Return the optimizer for a learning rate; equal arguments return the same object."""
    return optimizer if hasattr(optimizer, "update") else optimizer(learning_rate)


@partial(jax.jit, static_argnames="run")
def initial_states(run: train.Run, keys: Key, data: Data) -> TrainState:
    """Return the initial training states of all members, with a leading axis of members."""
    return lax.map(lambda key: run.init(key, data), keys)


@partial(jax.jit, static_argnames="run")
def take_epoch(run: train.Run, ts: TrainState, data: Data) -> TrainState:
    """Train each member for one epoch."""
    n = n_rows(data)

    def steps(ts: TrainState) -> TrainState:
        if run.batch_size is None:
            return run.step(ts, data)[0]
        rows = run.rows(jax.random.fold_in(ts.key, ts.step), jnp.int32(0), n, math.ceil(n / run.batch_size))
        return lax.scan(lambda ts, batch: run.step(ts, take_rows(data, batch)), ts, rows)[0]

    return lax.map(steps, ts)


@partial(jax.jit, static_argnames="net")
def predict_members(net: Layer, params: Params, state: State, x: Array) -> PyTree:
    """Return the outputs (members, n, outputs) of all members in evaluation mode, or a pair of such arrays."""
    return lax.map(lambda member: net.apply(member[0], member[1], x, train=False)[0], (params, state))
