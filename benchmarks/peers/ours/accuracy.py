"""Time to a target."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from benchmarks.compiled import compiled
from benchmarks.peers.ours.training import found
from benchmarks.reaching import Reached, examples, figures, reaching_error
from benchmarks.work import Program, Reaching
from nnjax import data, losses, metrics, nn, optim, train
from nnjax.data import take_rows
from nnjax.types import TrainState


def accuracy(job: Reaching, form: str) -> Program:
    """The whole run as one program, of which the seed is an argument: folds one after another, or under `vmap`.

    Raises:
      ValueError: for `vmap` where there is one network.
    """
    if form == "vmap" and job.folds is None:
        raise ValueError("one network; there is nothing to map over")
    given = examples(job)
    steps = -(-given.trained // job.batch)
    run = _run(job, steps)
    x, y = jnp.asarray(given.x), jnp.asarray(given.y)
    folds = jax.tree.map(jnp.asarray, given.folds)

    def whole(key: Array, x: Array, y: Array, folds: train.Folds) -> Any:
        each = jax.vmap if form == "vmap" else _mapped
        held_out = data.Data(x[folds.held_out.table], y[folds.held_out.table], _weights(folds.held_out))

        def epoch(ts: TrainState, rows: train.Rows, held_out: data.Data) -> tuple[TrainState, Array]:
            batches = rows.table[run.rows(ts.key, ts.step, jnp.asarray(rows.sizes), steps)]
            ts, _ = lax.scan(lambda ts, batch: run.step(ts, take_rows(data.Data(x, y), batch)), ts, batches)
            return ts, run.evaluate(ts, held_out)["accuracy"]

        def go_on(at: Any) -> Array:
            i, _, accuracies = at
            return (i < job.epochs) & (accuracies.mean() < job.target)

        def one(at: Any) -> Any:
            i, ts, _ = at
            return (i + 1, *each(epoch)(ts, folds.train, held_out))

        keys = jax.random.split(key, len(folds.train.sizes))
        ts = jax.vmap(lambda key: run.init(key, data.Data(x, y)))(keys)
        i, ts, accuracies = lax.while_loop(go_on, one, (jnp.int32(0), ts, jnp.zeros(len(keys))))
        return i, accuracies.mean(), accuracies, ts

    program = compiled(jax.jit(whole), jax.random.key(0), x, y, folds)

    def call(at: Reached) -> Reached:
        epochs, mean, accuracies, ts = program.call(jax.random.key(at.seed), x, y, folds)
        return Reached(at.seed + 1, (*at.runs, (epochs, mean)), accuracies, ts)

    def error(at: Reached) -> float:
        arrays = found(at.layers)  # of all folds
        return reaching_error(job, given, at, [[array[f] for array in arrays] for f in range(len(arrays[0]))])

    return Program(
        state=Reached(0, (), None, None),
        call=call,
        block=jax.block_until_ready,
        error=error,
        units=1,
        stages=program.stages,
        memory=program.memory,
        figures=partial(figures, job),
    )


def _run(job: Reaching, steps: int) -> train.Run:
    net = nn.mlp(job.hidden, 10, dropout=job.dropout)
    rate = optax.cosine_decay_schedule(job.rate, job.epochs * steps) if job.cosine else job.rate
    optimizer = optim.adamw(rate, weight_decay=job.decay) if job.decay else optim.adam(rate)
    return train.Run(net, losses.cross_entropy, optimizer, batch_size=job.batch, metrics=(metrics.accuracy,))


def _mapped(function: Any) -> Any:
    """As `jax.vmap`, one after another."""
    return lambda *args: lax.map(lambda one: function(*one), args)


def _weights(rows: train.Rows) -> Array:
    """1 for the rows of each fold, 0 for what fills up."""
    return (jnp.arange(rows.table.shape[1]) < rows.sizes[:, None]).astype(jnp.float32)
