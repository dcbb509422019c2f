"""Define the state that `fit` passes from chunk to chunk: training state, best network, and whether training ended."""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nnjax.types import Log, Params, State, TrainState

T = TypeVar("T")
NO_PATIENCE = 2**31 - 1  # a patience that no run reaches


class Best(NamedTuple):
    """The network with the lowest validation loss so far."""

    # () the validation loss. Without a finite loss so far, it is the largest float, because jax_debug_infs forbids inf;
    # in a `Result`, it is then inf
    score: Array
    step: Array  # () int32, number of steps taken before this validation
    params: Params
    state: State
    waited: Array  # () int32, number of validations since the best one


class FitState(NamedTuple):
    """The state on the device that is saved in a checkpoint."""

    train: TrainState
    diverged: Array  # () int32, the step with a non-finite loss, which ended the run; -1 if there is none
    stopped: Array  # () bool, True if early stopping ended the run
    best: Best | None  # None if there was no validation


def initial_fit_state(ts: TrainState, *, validated: bool, stopped: Array) -> FitState:
    """Return the state before the first chunk."""
    best = None
    if validated:
        dtype = jnp.result_type(float)
        none, zero = jnp.full((), np.finfo(dtype).max, dtype), jnp.zeros_like(ts.step)
        best = Best(none, zero, ts.params, ts.state, waited=zero)
    return FitState(ts, diverged=jnp.full_like(ts.step, -1), stopped=stopped, best=best)


def with_infinite_score(best: Best) -> Best:
    """Return the best network for the result of `fit`, with an infinite score if no validation loss was finite."""
    score = np.asarray(best.score)
    none = score == np.finfo(score.dtype).max
    return best._replace(score=jnp.asarray(np.where(none, np.inf, score).astype(score.dtype))) if none.any() else best


def is_running(fs: FitState) -> Array:
    """Return True unless the run diverged or was stopped early."""
    return (fs.diverged < 0) & ~fs.stopped


def record_step(fs: FitState, ts: TrainState, log: Log) -> FitState:
    """Record a step whose result is `ts`. A non-finite loss ends the run unless the step was skipped."""
    good = jnp.isfinite(log["loss"])
    diverged = jnp.where(good | (log["skipped"] > 0) if "skipped" in log else good, fs.diverged, fs.train.step)
    return fs._replace(train=ts, diverged=diverged)


def record_validation(fs: FitState, score: Array, patience: Array, params: Params) -> FitState:
    """Record a validation: keep the best network, and stop a run that no longer improves.

    Args:
      fs: the state; its `best` must not be None.
      score: () the validation loss. NaN counts as no improvement.
      patience: () int32, number of validations without improvement after which the run is stopped.
      params: the parameters that were evaluated.
    """
    assert fs.best is not None
    running = is_running(fs)
    score = score.astype(fs.best.score.dtype)
    better = running & (score < fs.best.score)
    waited = jnp.where(better, 0, fs.best.waited + running.astype(jnp.int32))
    current = Best(score, fs.train.step, params, fs.train.state, waited)
    best = tree_where(better, current, fs.best._replace(waited=waited))
    return fs._replace(best=best, stopped=fs.stopped | (running & (waited >= patience)))


def tree_where(condition: Array, new: T, old: T) -> T:
    """Return the arrays of `new` if the condition is true, and the arrays of `old` otherwise."""
    return jax.tree.map(lambda a, b: a if a is b else jnp.where(condition, a, b), new, old)
