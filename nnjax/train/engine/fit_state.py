"""What a `fit` carries from chunk to chunk: the training state, and whether and where it stops."""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from nnjax.types import Params, State, TrainState

T = TypeVar("T")
NEVER = 2**31 - 1  # validations without improvement that no run will see


class Best(NamedTuple):
    """The network at its lowest validation loss so far."""

    score: Array  # () the loss; infinite before the first validation
    step: Array  # () int32
    params: Params
    state: State
    waited: Array  # () int32, validations since


class FitState(NamedTuple):
    """All that a `fit` carries, and all that a checkpoint holds of the device."""

    train: TrainState
    diverged: Array  # () int32, the step whose loss was not finite, after which the run is frozen; -1 for none
    stopped: Array  # () bool, frozen by early stopping
    best: Best | None  # None without validation


def start(ts: TrainState, *, validated: bool, stopped: Array) -> FitState:
    """The state before the first chunk."""
    best = None
    if validated:
        infinite, zero = jnp.full((), jnp.inf, jnp.result_type(float)), jnp.zeros_like(ts.step)
        best = Best(infinite, zero, ts.params, ts.state, zero)
    return FitState(ts, jnp.full_like(ts.step, -1), stopped, best)


def alive(fs: FitState) -> Array:
    """Whether the run goes on."""
    return (fs.diverged < 0) & ~fs.stopped


def advance(fs: FitState, ts: TrainState, loss: Array) -> FitState:
    """The state after a step of this loss that led to `ts`; where the loss is not finite, it was the last step."""
    diverged = jnp.where(jnp.isfinite(loss), fs.diverged, fs.train.step)
    return fs._replace(train=ts, diverged=diverged)


def judge(fs: FitState, score: Array, patience: Array) -> FitState:
    """The state after a validation: the best network is kept, and a run without improvement is stopped.

    Args:
      fs: the state.
      score: () the validation loss; NaN is no improvement.
      patience: () int32, validations without improvement after which to stop.
    """
    assert fs.best is not None
    live = alive(fs)
    score = score.astype(fs.best.score.dtype)
    better = live & (score < fs.best.score)
    waited = jnp.where(better, 0, fs.best.waited + live.astype(jnp.int32))
    now = Best(score, fs.train.step, fs.train.params, fs.train.state, waited)
    return fs._replace(
        best=freeze(better, now, fs.best._replace(waited=waited)), stopped=fs.stopped | (live & (waited >= patience))
    )


def freeze(moving: Array, new: T, old: T) -> T:
    """The new tree where it moves, else the old one."""
    return jax.tree.map(lambda a, b: a if a is b else jnp.where(moving, a, b), new, old)
