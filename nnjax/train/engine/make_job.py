"""Make a job: check the arguments of a run together, and compute when its epochs end."""

import math
from inspect import signature
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nnjax import checks
from nnjax.data import Source, as_examples, n_rows, sample, validate
from nnjax.data._batches import is_batches
from nnjax.train.engine.ensemble import Ensemble, index_tree
from nnjax.train.engine.job import EPOCH_STEPS, Job, Members
from nnjax.train.engine.job_checks import (
    batches_source,
    check_generator,
    check_held_out,
    check_weights,
    check_without_data,
    warn_of_unused_rows,
    with_valid_labels,
)
from nnjax.train.engine.options import FitOptions
from nnjax.train.engine.uncast_inputs import uncast_inputs
from nnjax.train.folds import Folds, check_rows
from nnjax.train.run import NO_DATA
from nnjax.types import Key, PyTree

VALIDATED_WITHOUT_DATA = (
    "in evaluation on validation=, although the batch is Data((), ()) in the steps of a run without data; omit "
    "validation=, and compute scores in a callback, which gets the state"
)


def make_job(
    ensemble: Ensemble,
    keys: Key,
    hyper: PyTree,
    data: Any,
    *,
    options: FitOptions,
    folds: Folds | None = None,
    start: Any = None,
    validation: Any = None,
) -> Job:
    """Return the job of an ensemble; raise ValueError or TypeError if its data or arguments are invalid.

    Args:
      ensemble: the runs, and how their members are executed.
      keys: random keys (members,), one for each member.
      hyper: (members, ...) hyper-parameters; None if the run is fixed.
      data: see `fit`.
      options: the options of `fit`; only `epochs`, `steps`, `resume`, `validate_every` and `patience` are used.
      folds: see `fit`.
      start: see `fit`.
      validation: see `fit`.
    """
    check_generator(ensemble, keys)
    run = ensemble.run(index_tree(hyper, 0))
    if data is None:
        check_without_data(run, options, folds)
    if is_batches(data):
        data = batches_source(run, data, options, folds)
    if isinstance(data, Source):
        data = as_examples(data)  # checks the fields of the source
    key = jax.eval_shape(lambda keys: keys[0], keys)
    data = NO_DATA if data is None else as_examples(data, keep=uncast_inputs(run, key, data))
    held_out = validation
    if validation is not None:
        held_out = validate(validation, "validation", keep=uncast_inputs(run, key, validation, "validation"))
        if data is NO_DATA:
            with checks.located(VALIDATED_WITHOUT_DATA):
                jax.eval_shape(lambda: run.evaluate(run.init(keys[0], NO_DATA), held_out))
    in_order = isinstance(data, Source) and data.in_order
    counts = np.full(len(keys), EPOCH_STEPS * (run.batch_size or 1) if in_order else n_rows(data))
    rows = held_out_rows = None
    if folds is not None:
        rows = check_rows("folds.train", folds.train, n_rows(data))
        counts = np.asarray(rows.sizes)
        if held_out is None and not isinstance(data, Source):
            held_out, held_out_rows = data, check_rows("folds.held_out", folds.held_out, n_rows(data))
            if len(held_out_rows.table) != len(counts):
                raise ValueError(
                    f"fit: folds must train and validate the same number of members, got {len(counts)} and "
                    f"{len(held_out_rows.table)}"
                )
            warn_of_unused_rows(folds, n_rows(data))
    if run.batch_size is None and counts.min() < counts.max():
        raise ValueError(
            f"fit: batch_size=None takes all rows of a fold at once, but members have {counts.min()} to {counts.max()} "
            "rows; set a batch size, or use folds of equal size"
        )
    if (run.batch_size or 0) > counts.min():
        number = "one example" if counts.min() == 1 else f"{counts.min()} examples"
        checks.warn(f"fit: batch_size {run.batch_size} is larger than the {number}, so a batch covers several epochs")
    if not isinstance(data, Source):
        check_weights("training", data.weights, rows)
    check_held_out(held_out, held_out_rows, options.patience)
    epochs, ends = _epochs_and_ends(options, counts, run.batch_size)
    job = Job(
        ensemble=ensemble,
        members=Members(keys, hyper, rows, held_out_rows, ends=ends),
        data=data,
        held_out=held_out,
        validate_every=options.validate_every,
        patience=options.patience,
        epochs=epochs,
        epoch_steps=int(counts.max()) / (run.batch_size or int(counts.max())) if counts.any() else EPOCH_STEPS,
    )
    job = job._replace(members=job.members._replace(start=_initial_values(job, start)))
    return with_valid_labels(job)


def _epochs_and_ends(options: FitOptions, counts: np.ndarray, batch_size: int | None) -> tuple[float, np.ndarray]:
    """Return the number of epochs, and the steps (members, epochs) after which the epochs end."""
    if not counts.any():
        counts, batch_size = np.full_like(counts, EPOCH_STEPS), 1
    batch = batch_size or int(counts[0])
    if options.epochs is not None:
        epochs = options.epochs
    else:
        assert options.steps is not None
        if counts.min() < counts.max():
            raise ValueError(
                "fit: with folds of different sizes, the same steps= are different numbers of epochs; pass epochs="
            )
        epochs = round(options.steps * batch / int(counts[0]), 9)
    ends = np.array([epoch_ends(epochs, int(count), batch) for count in counts]).reshape(len(counts), -1)
    return epochs, ends if options.steps is None else np.minimum(ends, options.steps)  # `epochs` was rounded


def _initial_values(job: Job, start: Any) -> tuple[PyTree, PyTree] | None:
    """Return the initial parameters and state (members, ...) for `start`, or None to draw them.

    Raises:
      ValueError, TypeError: if structure, shapes or dtypes differ from the values that `run.init` returns.
    """
    if start is None:
        return None
    if isinstance(start, (str, Path)):
        raise TypeError(f"fit: start must be parameters or a state, got a path; pass train.load({str(start)!r})")
    members = len(job.members.keys)
    hyper, key = index_tree((job.members.hyper, job.members.keys), 0)
    run = job.ensemble.run(hyper)
    if "params" not in getattr(signature(run.init), "parameters", {}):
        raise TypeError(f"fit: start= needs a run whose init takes params= and state=; {type(run).__name__} does not")
    initial = jax.eval_shape(lambda: run.init(key, sample(job.data)))
    # True for a TrainState, Best, SavedRun or TrialNetwork
    has_state = {"params", "state"} <= set(getattr(start, "_fields", ()))
    values = {"params": start.params if has_state else start, "state": start.state if has_state else None}

    def per_member(name: str, tree: PyTree, like: PyTree) -> PyTree:
        checks.same_structure("fit", f"start: {name}", tree, like)
        shared = all(jnp.shape(a) == b.shape for a, b in zip(*map(jax.tree.leaves, (tree, like)), strict=True))

        def match_leaf(path: Any, leaf: Any, like: jax.ShapeDtypeStruct) -> Array:
            leaf = jnp.asarray(leaf)
            if leaf.shape not in (like.shape, (members, *like.shape)) or leaf.dtype != like.dtype:
                raise ValueError(
                    f"fit: start: {name}/{checks.path_name(path)} must be {like.shape} {like.dtype}, with or without a "
                    f"leading axis of {members} members, got {leaf.shape} {leaf.dtype}"
                )
            return jnp.broadcast_to(leaf, (members, *like.shape)) if shared else leaf

        return jax.tree_util.tree_map_with_path(match_leaf, tree, like)

    params = per_member("params", values["params"], initial.params)
    return params, None if values["state"] is None else per_member("state", values["state"], initial.state)


def epoch_ends(epochs: float, n: int, batch_size: int) -> list[int]:
    """Return the step after which each epoch ends, ⌈e n / batch_size⌉. A final fraction of an epoch counts as an epoch.

    Raises:
      ValueError, TypeError: if a number is out of range or has the wrong type.

    >>> train.epoch_ends(2, n=10, batch_size=4)
    [3, 5]
    """
    epochs = float(checks.in_range("epoch_ends", "epochs", epochs, "[0, inf)"))
    checks.positive_int("epoch_ends", "n", n)
    checks.positive_int("epoch_ends", "batch_size", batch_size)
    if epochs * n / batch_size >= 2**31 or epochs >= 2**31:
        steps = epochs * n / batch_size
        raise ValueError(f"fit: epochs={epochs:g} gives {steps:g} steps, expected fewer than 2³¹; lower epochs")
    whole = int(epochs)
    marks = [*range(1, whole + 1), *([epochs] if epochs > whole else [])]
    return [math.ceil(e * n / batch_size - 1e-9) for e in marks]  # because 1.1 · 50 exceeds 55 in floating point
