"""Where a run's examples come from: memory, or the host, which gathers those of the next steps ahead of time."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.data.source import Source, pieces
from nnjax.data.validate import x64
from nnjax.train.engine.device_loop import Block, Place
from nnjax.train.engine.ensemble import Program, put, put_each
from nnjax.train.folds import Rows
from nnjax.types import Data, Key, PyTree, TrainState

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
def from_source(
    program: Program, source: Source, keys: Key, hyper: PyTree, rows: Rows | None, stops: Sequence[np.ndarray]
) -> Iterator[Next]:
    """Blocks of examples, gathered by a thread: one in training, one ready, one on its way.

    Args:
      program: the run, for its order of rows.
      source: the examples.
      keys: (members,) of the members.
      hyper: (members, ...) of the members.
      rows: (members, ...) their own rows, on the host.
      stops: (members,) each, ascending: the steps at which members wait for each other.

    Raises:
      Whatever the source raises, where the block is needed; ValueError for a full batch.
    """
    ended = threading.Event()
    gather, size = _gatherer(program, source, keys, hyper, rows, ended)
    wide, device = x64(), jax.config.jax_default_device  # type: ignore[attr-defined]
    alone = jax.process_count() == 1  # else the transfer is a matter of all, in the order of their main threads
    waiting: list[tuple[np.ndarray, Future[Block]]] = []  # the limit of each, and the block
    block: Block | None = None
    limit: np.ndarray | None = None

    def work(start: np.ndarray, limit: np.ndarray) -> Block:
        with jax.enable_x64(wide), jax.default_device(device):  # a thread does not have the caller's
            return _put(program, gather(start, limit)) if alone else gather(start, limit)

    def submit(start: np.ndarray) -> None:
        limit = onward(start, size, stops)
        waiting.append((limit, thread.submit(work, start, limit)))

    def following(done: np.ndarray) -> Feed:
        nonlocal block, limit
        if limit is None or (done >= limit).all():
            if not waiting:
                submit(done)
            block = None  # its memory first
            limit, future = waiting.pop(0)
            block = future.result() if alone else _put(program, future.result())
            while len(waiting) < 2 and stops and ((start := waiting[-1][0] if waiting else limit) < stops[-1]).any():
                submit(start)
        return Feed(block, limit)

    with ThreadPoolExecutor(1, "nnjax-gather") as thread:
        try:
            yield following
        finally:
            ended.set()
            for _, future in waiting:
                future.cancel()


def _gatherer(
    program: Program, source: Source, keys: Key, hyper: PyTree, rows: Rows | None, ended: threading.Event
) -> tuple[Callable[[np.ndarray, np.ndarray], Block], int]:
    """`gather(start, limit)`, the block of each member's steps from `start` to before `limit`; and its most steps.

    The examples are sorted by row, for a disk reads forwards faster; a table tells where those of each step are.
    """
    run = program.run(jax.tree.map(lambda a: a[0], hyper))
    if run.batch_size is None:
        raise ValueError(
            "fit: batch_size=None takes all data at once, which a source is not for; give a batch size, or arrays in "
            "memory, as np.asarray makes them"
        )
    members, batch = len(keys), run.batch_size
    count = np.full(members, source.n, np.int32) if rows is None else np.asarray(rows.sizes)
    sample = source.gather(np.zeros(1, np.int64))
    size = max(1, BYTES // (members * batch * (source.bytes_per_row + 4)))
    draw = _drawing(program, keys, hyper, count, size)

    def gather(start: np.ndarray, limit: np.ndarray) -> Block:
        drawn = draw(start)
        if rows is not None:
            table = np.asarray(rows.table)
            drawn = np.take_along_axis(table, drawn.reshape(members, -1), axis=1).reshape(drawn.shape)
        needed = np.arange(size) < (limit - start)[:, None]
        wanted = drawn[needed].reshape(-1)
        order = np.argsort(wanted)
        at = np.empty(len(order), np.int32)
        at[order] = np.arange(len(order), dtype=np.int32)
        where = np.zeros(drawn.shape, np.int32)
        where[needed] = at.reshape(-1, batch)
        block = jax.tree.map(lambda a: _aligned((drawn.size, *a.shape[1:]), a.dtype), sample)
        filled = 0
        for some in pieces(wanted[order], source.bytes_per_row):
            if ended.is_set():
                raise CancelledError
            jax.tree.map(partial(_fill, filled), block, source.gather(some))
            filled += len(some)
        return Block(block, Place(where, start.astype(np.int32)))

    return gather, size


def onward(done: np.ndarray, steps: int, stops: Sequence[np.ndarray]) -> np.ndarray:
    """Where members are after so many steps: who is at a stop waits there for the others; after the last nobody does.

    Whole or in parts, the way is the same: that of any chunks.
    """
    start = done
    for stop in stops:
        taken = min(steps, int((stop - done).max(initial=0)))
        if taken > 0:
            done = np.maximum(done, np.minimum(done + taken, stop))
            steps -= taken
    return done + steps if (done == start).all() else done


def _drawing(
    program: Program, keys: Key, hyper: PyTree, count: np.ndarray, n: int
) -> Callable[[np.ndarray], np.ndarray]:
    """`draw(start)`: the rows (members, n, batch) of the n steps from `start` of each member, drawn by the processor.

    An accelerator would draw them only after the chunk that it is busy with.
    """
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        host = jax.local_devices()[0]
    keys, hyper = jax.device_put((keys, jax.tree.map(lambda a: a[0], hyper)), host)

    def draw(start: np.ndarray) -> np.ndarray:
        with jax.default_device(host):
            return np.asarray(_draw(program, keys, hyper, count, start.astype(np.int32), n))

    return draw


@partial(jax.jit, static_argnames=("program", "n"))
def _draw(program: Program, keys: Key, hyper: PyTree, count: jax.Array, start: jax.Array, n: int) -> jax.Array:
    run = program.run(hyper)

    def one(key: Key, count: jax.Array, start: jax.Array) -> jax.Array:
        return run.rows(TrainState(start, (), (), (), key), count, n)

    return jax.vmap(one)(keys, jnp.asarray(count), jnp.asarray(start))


def _put(program: Program, block: Block) -> Block:
    """The block on the device: on a processor, whose memory is the host's, without a copy."""
    data: Data = jax.device_put(block.data) if program.mesh is None else put(program, block.data)
    return Block(data, put_each(program, block.place))


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array that JAX takes as it is: it copies those that begin elsewhere than at a multiple of 64 bytes."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    begin = -memory.__array_interface__["data"][0] % 64
    return memory[begin : begin + size].view(dtype).reshape(shape)


def _fill(at: int, array: np.ndarray, part: np.ndarray) -> None:
    array[at : at + len(part)] = part
