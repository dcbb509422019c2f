"""Train the networks of all folds in one program until they reach the target accuracy."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from benchmarks.jobs.definitions import TimeToAccuracy
from benchmarks.jobs.program import Program
from benchmarks.jobs.time_to_accuracy import Runs, accuracy_error, accuracy_figures, fold_examples
from benchmarks.peers._jax.stages import compile_in_stages
from benchmarks.peers.ours.training import to_arrays
from nnjax import data, losses, metrics, nn, optim, train
from nnjax.data import take_rows
from nnjax.types import TrainState


def time_to_accuracy(job: TimeToAccuracy, form: str) -> Program:
    """Compile the whole run as one program that takes a random key; the folds run in sequence or under `vmap`.

    Raises:
      ValueError: if the form is `vmap` and there is only one network, or if the data set is not on this machine.
    """
    if form == "vmap" and job.folds is None:
        raise ValueError("there is only one network, so vmap has nothing to map over")
    examples = fold_examples(job)
    steps = -(-examples.largest_train_size // job.batch)
    run = _run(job, steps)
    x, y = jnp.asarray(examples.x), jnp.asarray(examples.y)
    folds = jax.tree.map(jnp.asarray, examples.folds)

    def train_to_target(key: Array, x: Array, y: Array, folds: train.Folds) -> Any:
        map_folds = jax.vmap if form == "vmap" else _map
        held_out = data.Data(x[folds.held_out.table], y[folds.held_out.table], _weights(folds.held_out))

        def epoch(ts: TrainState, rows: train.Rows, held_out: data.Data) -> tuple[TrainState, Array]:
            batches = rows.table[run.rows(ts.key, ts.step, jnp.asarray(rows.sizes), steps)]
            ts, _ = lax.scan(lambda ts, batch: run.step(ts, take_rows(data.Data(x, y), batch)), ts, batches)
            return ts, run.evaluate(ts, held_out)["accuracy"]

        def continues(carry: Any) -> Array:
            i, _, accuracies = carry
            return (i < job.epochs) & (accuracies.mean() < job.target)

        def all_folds_epoch(carry: Any) -> Any:
            i, ts, _ = carry
            return (i + 1, *map_folds(epoch)(ts, folds.train, held_out))

        keys = jax.random.split(key, len(folds.train.sizes))
        ts = jax.vmap(lambda key: run.init(key, data.Data(x, y)))(keys)
        carry = (jnp.int32(0), ts, jnp.zeros(len(keys)))
        i, ts, accuracies = lax.while_loop(continues, all_folds_epoch, carry)
        return i, accuracies.mean(), accuracies, ts

    compiled = compile_in_stages(jax.jit(train_to_target), jax.random.key(0), x, y, folds)

    def call(runs: Runs) -> Runs:
        epochs, mean, accuracies, ts = compiled.call(jax.random.key(runs.seed), x, y, folds)
        return Runs(runs.seed + 1, (*runs.ends, (epochs, mean)), accuracies, ts)

    def error(runs: Runs) -> float:
        arrays = to_arrays(runs.networks)  # the first axis indexes the folds
        return accuracy_error(job, examples, runs, [[array[f] for array in arrays] for f in range(len(arrays[0]))])

    return Program(
        state=Runs(0, (), None, None),
        call=call,
        block=jax.block_until_ready,
        error=error,
        units=1,
        stages=compiled.stages,
        memory=compiled.memory,
        figures=partial(accuracy_figures, job),
    )


def _run(job: TimeToAccuracy, steps: int) -> train.Run:
    net = nn.mlp(job.hidden, 10, dropout=job.dropout)
    rate = optax.cosine_decay_schedule(job.rate, job.epochs * steps) if job.cosine else job.rate
    optimizer = optim.adamw(rate, weight_decay=job.decay) if job.decay else optim.adam(rate)
    return train.Run(net, losses.cross_entropy, optimizer, batch_size=job.batch, metrics=(metrics.accuracy,))


def _map(function: Any) -> Any:
    """Return a function that maps over the folds in sequence, like `jax.vmap`."""
    return lambda *args: lax.map(lambda fold_args: function(*fold_args), args)


def _weights(rows: train.Rows) -> Array:
    """Return weights that are 1 for the rows of each fold and 0 for padding."""
    return (jnp.arange(rows.table.shape[1]) < rows.sizes[:, None]).astype(jnp.float32)
