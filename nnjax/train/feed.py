"""Where a run's examples come from: memory, or the host, which gathers those of the next steps ahead of time."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.data.source import Source
from nnjax.train.chunk import Block
from nnjax.train.folds import Rows
from nnjax.train.program import Program, put_each
from nnjax.types import Key, PyTree, TrainState

BYTES = 64 * 2**20  # of one block, of which there are three: in training, ready, being gathered


class Feed(NamedTuple):
    """The examples of a chunk."""

    block: Block | None  # those of its first steps; None where all are in memory
    limit: np.ndarray | None  # (members,) the step the block ends before; None for no end


Next = Callable[[np.ndarray], Feed]  # (steps done, (members,)) -> what the next chunk reads


def from_memory(done: np.ndarray) -> Feed:
    """All examples are on the device."""
    return Feed(None, None)


@contextmanager
def from_source(program: Program, source: Source, keys: Key, hyper: PyTree, rows: Rows | None) -> Iterator[Next]:
    """Blocks of examples gathered by a thread: one in training, one ready, one on its way.

    Args:
      program: the run, for its order of rows.
      source: the examples.
      keys: (members,) of the members.
      hyper: (members, ...) of the members.
      rows: (members, ...) their own rows, on the host.
    """
    run = program.run(jax.tree.map(lambda a: a[0], hyper))
    if run.batch_size is None:
        raise ValueError("fit: batch_size=None takes all data at once, which a source is not for; give a batch size")
    members = len(keys)
    bytes_per_step = run.batch_size * members * source.bytes_per_row
    size = int(max(1, min(1024, BYTES // max(1, bytes_per_step))))  # steps
    index = None if rows is None else np.asarray(rows.table)
    count = np.full(members, source.n, np.int32) if rows is None else np.asarray(rows.sizes)

    def gather(start: np.ndarray) -> Block:
        drawn = np.asarray(_draw(program, keys, hyper, count, start.astype(np.int32), size)).reshape(members, -1)
        if index is not None:
            drawn = np.take_along_axis(index, drawn, axis=1)
        parts = source.gather(drawn.reshape(-1))
        each = jax.tree.map(lambda a: a.reshape(members, drawn.shape[1], *a.shape[1:]), parts)
        return put_each(program, Block(each, start.astype(np.int32)))

    start: np.ndarray | None = None
    waiting: list[Future[Block]] = []
    block: Block | None = None
    with ThreadPoolExecutor(1, "nnjax-gather") as thread:

        def following(done: np.ndarray) -> Feed:
            nonlocal start, block
            if start is None:
                start = done - size
                waiting.extend(thread.submit(gather, done + i * size) for i in range(2))
            if (done >= start + size).all():
                start = start + size
                block = None  # its memory first
                block = waiting.pop(0).result()
                waiting.append(thread.submit(gather, start + 2 * size))
            return Feed(block, start + size)

        try:
            yield following
        finally:
            for future in waiting:
                future.cancel()


@partial(jax.jit, static_argnames=("program", "n"))
def _draw(program: Program, keys: Key, hyper: PyTree, count: jax.Array, start: jax.Array, n: int) -> jax.Array:
    """The rows (members, n, batch) of the n steps from `start`."""

    def one(key: Key, hyper: PyTree, count: jax.Array, start: jax.Array) -> jax.Array:
        return program.run(hyper).rows(TrainState(start, (), (), (), key), count, n)

    return jax.vmap(one)(keys, hyper, jnp.asarray(count), jnp.asarray(start))
