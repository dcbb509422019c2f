"""Make a job: check the arguments of a run together, and compute when its epochs end."""

import math
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nnjax import checks
from nnjax.data import Source, as_examples, batches, check_labels, n_rows, sample, validate
from nnjax.data._batches import is_batches
from nnjax.nn import as_layer
from nnjax.train.engine.ensemble import Ensemble, index_tree
from nnjax.train.engine.job import EPOCH_STEPS, Job, Members
from nnjax.train.engine.last_activation import activation_of, ends_in
from nnjax.train.engine.options import FitOptions
from nnjax.train.engine.uncast_inputs import uncast_inputs
from nnjax.train.folds import Folds, Rows, check_rows
from nnjax.train.run import NO_DATA, Run
from nnjax.types import Data, Key, PyTree, Trainable

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
      hyper: (members, ...) hyper-parameters; None for a fixed run.
      data: see `fit`.
      options: the options of `fit`; only `epochs`, `steps`, `resume`, `validate_every` and `patience` are used.
      folds: see `fit`.
      start: see `fit`.
      validation: see `fit`.
    """
    _check_generator(ensemble, keys)
    run = ensemble.run(index_tree(hyper, 0))
    if data is None:
        _check_without_data(run, options, folds)
    if is_batches(data):
        data = _checked_batches(run, data, options, folds)
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
            _warn_of_unused_rows(folds, n_rows(data))
    if run.batch_size is None and counts.min() < counts.max():
        raise ValueError(
            f"fit: batch_size=None takes all rows of a fold at once, but members have {counts.min()} to {counts.max()} "
            "rows; set a batch size, or use folds of equal size"
        )
    if (run.batch_size or 0) > counts.min():
        checks.warn(
            f"fit: batch_size {run.batch_size} is larger than the {counts.min()} examples, so a batch covers several "
            "epochs",
        )
    if not isinstance(data, Source):
        _check_weights("training", data.weights, rows)
    _check_held_out(held_out, held_out_rows, options.patience)
    epochs, ends = _epochs_and_ends(options, counts, run.batch_size)
    every = options.validate_every
    job = Job(
        ensemble=ensemble,
        members=Members(keys, hyper, rows, held_out_rows, ends=ends),
        data=data,
        held_out=held_out,
        validated=frozenset() if held_out is None else frozenset(range(every - 1, int(epochs), every)),
        validate_every=every,
        patience=options.patience,
        epochs=epochs,
        epoch_steps=int(counts.max()) / (run.batch_size or int(counts.max())) if counts.any() else EPOCH_STEPS,
    )
    job = job._replace(members=job.members._replace(start=_initial_values(job, start)))
    return _check_labels(job)


def _warn_of_unused_rows(folds: Folds, n: int) -> None:
    """Warn if the folds use only the first rows of the data, which happens if `k_fold` is called with a smaller n."""
    parts = [[rows.table[member][: rows.sizes[member]] for rows in folds] for member in range(len(folds.train.sizes))]
    used = np.unique(np.concatenate(parts[0]))
    first_rows = np.arange(len(used))
    if len(used) < n and all(np.array_equal(np.unique(np.concatenate(part)), first_rows) for part in parts):
        checks.warn(
            f"fit: the folds contain only rows 0 … {len(used) - 1}, but the data have {n} rows; make the folds with "
            f"n={n}, so that all rows are used",
        )


def _check_without_data(run: Trainable, options: FitOptions, folds: Folds | None) -> None:
    """Check the arguments of a run without data."""
    if run.batch_size is not None:
        raise ValueError(f"fit: batch_size={run.batch_size} needs data; pass data, or batch_size=None for no data")
    if options.steps is None:
        raise ValueError("fit: epochs= counts passes over data, but this run has no data; pass its length as steps=")
    if folds is not None:
        raise ValueError("fit: folds= selects rows of data, but this run has no data; omit folds")


def _checked_batches(run: Trainable, data: Any, options: FitOptions, folds: Folds | None) -> Source:
    """Check the arguments for a generator of batches, and return a source that reads it."""
    if options.steps is None:
        raise ValueError("fit: a generator of batches has no epochs; pass the length of the run as steps=")
    if run.batch_size is None:
        raise ValueError("fit: a generator of batches is read in steps of batch_size examples; set a batch size")
    if options.resume or folds is not None:
        argument = "resume=" if options.resume else "folds="
        raise ValueError(f"fit: {argument} needs rows in any order, but a generator is read once; see data.source")
    return batches(data, max(1, options.steps) * run.batch_size)


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
    """Return the initial parameters and state (members, ...) for `start`, or None for random ones.

    Raises:
      ValueError, TypeError: if structure, shapes or dtypes differ from those of the values that `run.init` returns.
    """
    if start is None:
        return None
    members = len(job.members.keys)
    hyper, key = index_tree((job.members.hyper, job.members.keys), 0)
    run = job.ensemble.run(hyper)
    if "params" not in getattr(signature(run.init), "parameters", {}):
        raise TypeError(f"fit: start= needs a run whose init takes params= and state=; {type(run).__name__} does not")
    drawn = jax.eval_shape(lambda: run.init(key, sample(job.data)))
    whole = {"params", "state"} <= set(getattr(start, "_fields", ()))  # a TrainState, Best, SavedRun or TrialNetwork
    values = {"params": start.params if whole else start, "state": start.state if whole else None}

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

    params = per_member("params", values["params"], drawn.params)
    return params, None if values["state"] is None else per_member("state", values["state"], drawn.state)


def epoch_ends(epochs: float, n: int, batch_size: int) -> list[int]:
    """Return the step after which each epoch ends, ⌈e n / batch_size⌉. A final fraction of an epoch counts as an epoch.

    Raises:
      ValueError, TypeError: for numbers out of range.

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


def _check_held_out(held_out: Data | None, rows: Rows | None, patience: int | None) -> None:
    """Check that there are validation data for `patience`, and that their weights are not all 0."""
    if held_out is not None:
        _check_weights("validation", held_out.weights, rows)
    elif patience is not None:
        raise ValueError(
            f"fit: patience={patience} needs validation data; pass validation=, or folds of data in memory"
        )


def _check_weights(part: str, weights: Array | None, rows: Rows | None) -> None:
    """Check that every member has rows with positive weights; otherwise, its loss would always be 0."""
    if weights is None:
        return
    positive = np.asarray(weights) > 0
    by_member = [positive] if rows is None else [positive[t[:n]] for t, n in zip(rows.table, rows.sizes, strict=True)]
    for member, own in enumerate(by_member):
        if not own.any():
            place = "" if rows is None else f" of member {member}"
            raise ValueError(f"fit: the weights of the {len(own)} {part} rows{place} are all 0; choose other rows")


def _check_generator(ensemble: Ensemble, keys: Key) -> None:
    """Check that members under vmap draw the same random numbers as single runs."""
    generator = str(jax.random.key_impl(keys))
    if ensemble.lockstep and generator != "threefry2x32":
        raise ValueError(
            f"fit: strategy='vmap' needs threefry2x32 keys, got {generator}, which draws different numbers under "
            "vmap and in a single run; use strategy='map', or jax.random.key(seed, impl='threefry2x32')"
        )


def _check_labels(job: Job) -> Job:
    """Check that the labels and the network's last layer are valid for the loss.

    With invalid labels, the program would return NaN or a meaningless number.

    The labels of a source are checked batch by batch, when they are gathered. If the run has an objective, labels are
    not checked, because an objective may use them in any way.
    """
    run = job.ensemble.run(index_tree(job.members.hyper, 0))
    if not isinstance(run, Run) or run.loss is None or job.data is NO_DATA:
        return job
    net = as_layer(run.net)

    @jax.jit  # so that all checks share one trace
    def first_output(keys: Key, x: PyTree) -> PyTree:
        params, state = net.init(keys[0], x)
        return net.apply(params, state, x, train=False)[0]

    def first_row(x: PyTree) -> PyTree:
        return jax.tree.map(lambda a: a[:1], x)

    def predict(x: PyTree) -> PyTree:
        return first_output(job.members.keys, first_row(x))

    if function := activation_of(run.loss):
        x = jax.eval_shape(first_row, sample(job.data).x)
        program = first_output.trace(job.members.keys, x).jaxpr
    if function and ends_in(function, program.jaxpr):
        checks.warn(
            f"fit: {net.name} ends in a {function}, but the loss takes logits and applies the {function} itself; "
            f"remove the last layer, and apply the {function} to the outputs of predict",
        )
    if job.held_out is not None:
        check_labels(job.held_out, run.loss, predict, "validation")
    return job._replace(data=check_labels(job.data, run.loss, predict))
