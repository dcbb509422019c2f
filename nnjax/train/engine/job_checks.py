"""Check the arguments of a job: its data, weights, labels, folds and random keys."""

from typing import Any

import jax
import numpy as np
from jax import Array

from nnjax import checks
from nnjax.data import Source, batches, check_labels, sample
from nnjax.nn import as_layer
from nnjax.train.engine.ensemble import Ensemble, index_tree
from nnjax.train.engine.job import Job
from nnjax.train.engine.last_activation import activation_of, ends_in
from nnjax.train.engine.options import FitOptions
from nnjax.train.engine.target_checks import check_targets
from nnjax.train.folds import Folds, Rows
from nnjax.train.run import NO_DATA, Run
from nnjax.types import Data, Key, PyTree, Trainable


def warn_of_unused_rows(folds: Folds, n: int) -> None:
    """Warn if the folds use only the first rows of the data, which happens if `k_fold` is called with a smaller n."""
    parts = [[rows.table[member][: rows.sizes[member]] for rows in folds] for member in range(len(folds.train.sizes))]
    used = np.unique(np.concatenate(parts[0]))
    first_rows = np.arange(len(used))
    if len(used) < n and all(np.array_equal(np.unique(np.concatenate(part)), first_rows) for part in parts):
        checks.warn(
            f"fit: the folds contain only rows 0 … {len(used) - 1}, but the data have {n} rows; make the folds with "
            f"n={n}, so that all rows are used",
        )


def check_without_data(run: Trainable, options: FitOptions, folds: Folds | None) -> None:
    """Check the arguments of a run without data."""
    if run.batch_size is not None:
        raise ValueError(f"fit: batch_size={run.batch_size} needs data; pass data, or batch_size=None for no data")
    if options.steps is None:
        raise ValueError("fit: epochs= counts passes over data, but this run has no data; pass its length as steps=")
    if folds is not None:
        raise ValueError("fit: folds= selects rows of data, but this run has no data; omit folds")


def batches_source(run: Trainable, data: Any, options: FitOptions, folds: Folds | None) -> Source:
    """Check the arguments for a generator of batches, and return a source that reads it."""
    if options.steps is None:
        raise ValueError("fit: a generator of batches has no epochs; pass the length of the run as steps=")
    if run.batch_size is None:
        raise ValueError("fit: a generator of batches is read in steps of batch_size examples; set a batch size")
    if options.resume or folds is not None:
        argument = "resume=" if options.resume else "folds="
        raise ValueError(f"fit: {argument} needs rows in any order, but a generator is read once; see data.source")
    return batches(data, max(1, options.steps) * run.batch_size)


def check_held_out(held_out: Data | None, rows: Rows | None, patience: int | None) -> None:
    """Check that there are validation data for `patience`, and that their weights are not all 0."""
    if held_out is not None:
        check_weights("validation", held_out.weights, rows)
    elif patience is not None:
        raise ValueError(
            f"fit: patience={patience} needs validation data; pass validation=, or folds of data in memory"
        )


def check_weights(part: str, weights: Array | None, rows: Rows | None) -> None:
    """Check that every member has rows with positive weights; otherwise, its loss would always be 0."""
    if weights is None:
        return
    positive = np.asarray(weights) > 0
    by_member = [positive] if rows is None else [positive[t[:n]] for t, n in zip(rows.table, rows.sizes, strict=True)]
    for member, flags in enumerate(by_member):
        if not flags.any():
            place = "" if rows is None else f" of member {member}"
            raise ValueError(f"fit: the weights of the {len(flags)} {part} rows{place} are all 0; choose other rows")


def check_generator(ensemble: Ensemble, keys: Key) -> None:
    """Check that members under vmap draw the same random numbers as single runs."""
    generator = str(jax.random.key_impl(keys))
    if ensemble.lockstep and generator != "threefry2x32":
        raise ValueError(
            f"fit: strategy='vmap' needs threefry2x32 keys, got {generator}, which draws different numbers under "
            "vmap and in a single run; use strategy='map', or jax.random.key(seed, impl='threefry2x32')"
        )


def with_valid_labels(job: Job) -> Job:
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
        check_targets(job.held_out, run.loss, predict, "validation")
        check_labels(job.held_out, run.loss, predict, "validation")
    check_targets(job.data, run.loss, predict)
    return job._replace(data=check_labels(job.data, run.loss, predict))
