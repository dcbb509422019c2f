"""Call any `types.Trainable`, check its results, draw its batches, and get its parameters for evaluation."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import checks
from nnjax.train.objective import check_log
from nnjax.train.run import Run, draw_rows
from nnjax.types import Data, Key, Log, Params, PyTree, Trainable, TrainState

METHODS = ("batch_size", "init", "step", "evaluate")


def is_trainable(run: Any) -> bool:
    """Return True for a `Run`, and for any object with the attributes of `types.Trainable`."""
    return isinstance(run, Run) or all(hasattr(run, name) for name in METHODS)


def check_trainable(where: str, name: str, run: Any) -> Trainable:
    """Check that `run` is a hashable `Trainable`, and return it.

    Raises:
      TypeError: if `run` has missing attributes or is not hashable.
    """
    if not is_trainable(run):
        missing = [method for method in METHODS if not hasattr(run, method)]
        raise TypeError(
            f"{where}: {name} must be a train.Run, or have the attributes of types.Trainable; "
            f"{type(run).__name__} has no {', '.join(missing)}"
        )
    try:
        hash(run)
    except TypeError:
        raise TypeError(
            f"{where}: {name} must be hashable, because programs are compiled for it; make {type(run).__name__} a "
            "frozen dataclass of hashable fields"
        ) from None
    return run


def refuse_tracing(tree: PyTree) -> None:
    """Raise TypeError if JAX traces a leaf: `fit` was called inside of a transformation such as `jax.vmap`."""
    if any(map(checks.is_traced, jax.tree.leaves(tree))):
        raise TypeError(
            "fit: cannot run inside jax.jit, jax.vmap or jax.grad, because its loop is in Python; pass members= or use "
            "train.sweep, or transform run.steps(run.init(key, data), data, n)"
        )


def initial_train_state(run: Trainable, key: Key, data: Data, start: PyTree) -> TrainState:
    """Return the initial state, with random parameters or with `(params, state)`; raise unless it is a TrainState."""
    ts = run.init(key, data) if start is None else run.init(key, data, params=start[0], state=start[1])  # type: ignore[call-arg]
    if not isinstance(ts, TrainState):
        raise TypeError(f"fit: {type(run).__name__}.init must return a TrainState, got {ts!r:.80}")
    return ts


def take_step(run: Trainable, ts: TrainState, batch: Data) -> tuple[TrainState, Log]:
    """Take a step, and return the state and the log; raise unless both have the required structure."""
    output: Any = run.step(ts, batch)
    if not isinstance(output, tuple) or len(output) != 2 or not isinstance(output[0], TrainState):
        raise TypeError(f"fit: {type(run).__name__}.step must return (TrainState, log), got {output!r:.80}")
    new, log = output
    difference = checks.structure_difference(new, ts) or checks.leaf_difference(new, ts)
    if difference:
        raise TypeError(
            f"fit: {type(run).__name__}.step must return a state with the same structure, shapes and dtypes, but "
            f"{difference}; a layer's apply and an optimizer's update must return what their init returned"
        )
    if isinstance(run, Run):
        return new, log
    log = check_log(f"{type(run).__name__}.step", log, with_loss=True)
    return new, log


def batch_rows(run: Trainable, key: Key, step: Array, n_examples: Array | int, n: int) -> Array:
    """Draw the example indices (n, batch_size) of the batches in the steps `step` … `step + n - 1`."""
    assert run.batch_size is not None
    return draw_rows(getattr(run, "sampler", None), key, step, n_examples, n=n, batch_size=run.batch_size)


def evaluation_params(run: Trainable, ts: TrainState) -> Params:
    """Return the parameters that the run evaluates, such as averages."""
    select = getattr(run, "evaluation_params", None)
    return ts.params if select is None else select(ts.opt_state, ts.params)


def check_scores(log: Any) -> Log:
    """Return the log of an evaluation; raise TypeError unless it has a scalar loss."""
    if not isinstance(log, dict) or "loss" not in log or jnp.shape(log["loss"]) != ():
        raise TypeError(f"fit: evaluate must return a dict with a scalar 'loss', got {log!r:.80}")
    return log
