"""Prefetch the examples for the next steps from a source while the device trains."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnjax.data import Source
from nnjax.data._source import pieces
from nnjax.data._validate import x64
from nnjax.train.engine.compiled import compiled
from nnjax.train.engine.device_loop import Block, Positions
from nnjax.train.engine.ensemble import Ensemble, index_tree
from nnjax.train.engine.job import Job
from nnjax.train.engine.placement import replicate, shard_members
from nnjax.train.engine.trainable import batch_rows
from nnjax.types import Data, Key, PyTree

BYTES = 64 * 2**20  # bytes per block; there are three blocks: one in training, one ready, and one being gathered
POLL = 0.1  # seconds between checks for an interruption while the source is read
PATIENCE = 2.0  # seconds to wait for the source when a run ends


class Feed(NamedTuple):
    """The examples for a chunk."""

    block: Block | None  # examples for the next steps; None if all data are on the device
    limit: np.ndarray | None  # (members,) the number of steps after which the block ends; None if there is no block


class WaitInterruptedError(Exception):
    """The run was interrupted while it waited for its source."""


class NextFeed(Protocol):
    """Return the feed for the chunk that follows the steps `done` (members,), or raise `WaitInterruptedError`."""

    def __call__(self, done: np.ndarray, interrupted: Callable[[], bool] = ...) -> Feed: ...


def no_feed(done: np.ndarray, interrupted: Callable[[], bool] = lambda: False) -> Feed:
    """Return an empty feed, for data that are on the device."""
    return Feed(block=None, limit=None)


@contextmanager
def prefetched(job: Job, source: Source, stops: Sequence[np.ndarray]) -> Iterator[NextFeed]:
    """Yield a function that returns blocks of examples, which a thread gathers up to two blocks ahead.

    The thread is a daemon, so a source that hangs cannot keep the process running.

    Args:
      job: the job, which determines the rows of each step.
      source: the examples.
      stops: ascending steps (members,) at which members wait for each other.

    Raises:
      ValueError: if `batch_size` is None. Errors of the source are raised when the block is needed.
    """
    closed = threading.Event()
    gather, size = gatherer(job, source, closed)
    wide, device = x64(), jax.config.jax_default_device  # type: ignore[attr-defined]
    single = jax.process_count() == 1  # if False, main threads transfer blocks, in the same order in all processes
    tasks: SimpleQueue[tuple[np.ndarray, np.ndarray, Future[Block]] | None] = SimpleQueue()
    pending: list[tuple[np.ndarray, Future[Block]]] = []  # the limit of each block, and the block
    block: Block | None = None
    limit: np.ndarray | None = None

    def work() -> None:
        while (task := tasks.get()) is not None and not closed.is_set():
            start, limit, future = task
            # Threads do not inherit these settings from the caller
            with jax.enable_x64(wide), jax.default_device(device), jax.transfer_guard("allow"):
                try:
                    gathered = gather(start, limit)
                    future.set_result(to_device(job.ensemble, gathered) if single else gathered)
                except BaseException as error:  # the main thread raises it when it reaches this block
                    future.set_exception(error)
                    return
            del task, future  # otherwise, they would keep the block in memory

    def submit(start: np.ndarray) -> None:
        limit, future = steps_ahead(start, size, stops), Future[Block]()
        pending.append((limit, future))
        tasks.put((start, limit, future))

    def next_feed(done: np.ndarray, interrupted: Callable[[], bool] = lambda: False) -> Feed:
        nonlocal block, limit
        if limit is None or (done >= limit).all():
            if not pending:
                submit(done)
            block = None  # free the memory of the previous block
            while not wait([pending[0][1]], POLL).done:
                if interrupted():
                    raise WaitInterruptedError
            limit, future = pending.pop(0)
            block = future.result() if single else to_device(job.ensemble, future.result())
            while len(pending) < 2 and stops and ((start := pending[-1][0] if pending else limit) < stops[-1]).any():
                submit(start)
        return Feed(block, limit)

    thread = threading.Thread(target=work, name="nnjax-gather", daemon=True)
    thread.start()
    try:
        yield next_feed
    finally:
        closed.set()
        tasks.put(None)
        thread.join(PATIENCE)


def steps_ahead(done: np.ndarray, steps: int, stops: Sequence[np.ndarray]) -> np.ndarray:
    """Return each member's step after `steps` more steps. Members wait for each other at every stop except the last.

    The result does not depend on whether the steps are taken at once or in parts.
    """
    start = done
    for stop in stops:
        taken = min(steps, int((stop - done).max(initial=0)))
        if taken > 0:
            done = np.maximum(done, np.minimum(done + taken, stop))
            steps -= taken
    return done + steps if (done == start).all() else done


def gatherer(
    job: Job, source: Source, closed: threading.Event
) -> tuple[Callable[[np.ndarray, np.ndarray], Block], int]:
    """Return a function that gathers a block, and the largest number of steps in a block.

    Raise ValueError if `batch_size` is None.

    `gather(start, limit)` returns the block for the steps start … limit - 1 of each member. Examples are read in the
    order of their rows, because sequential reads from disk are faster; `Positions` says where each step's examples are.
    """
    run, members_rows = job.ensemble.run(index_tree(job.members.hyper, 0)), job.members.rows
    if run.batch_size is None:
        raise ValueError(
            "fit: batch_size=None takes all data at once, but a source is read batch by batch; set a batch size, or "
            "use arrays in memory (np.asarray)"
        )
    members, batch = len(job.members.keys), run.batch_size
    count = source.n if members_rows is None else np.asarray(members_rows.sizes)
    sample = source.gather(np.zeros(1, np.int64))
    size = max(1, BYTES // (members * batch * (source.bytes_per_row + 4)))
    draw = _rows_in_order(batch, size) if source.in_order else _row_drawer(job, count, size)

    def gather(start: np.ndarray, limit: np.ndarray) -> Block:
        indices = draw(start)
        if members_rows is not None:
            table = np.asarray(members_rows.table)
            indices = np.take_along_axis(table, indices.reshape(members, -1), axis=1).reshape(indices.shape)
        due = np.arange(size) < (limit - start)[:, None]
        rows = indices[due].reshape(-1)
        order = np.argsort(rows)
        position = np.empty(len(order), np.int32)
        position[order] = np.arange(len(order), dtype=np.int32)
        positions = np.zeros(indices.shape, np.int32)
        positions[due] = position.reshape(-1, batch)
        block = jax.tree.map(lambda a: _empty_aligned((indices.size, *a.shape[1:]), a.dtype), sample)
        filled = 0
        for piece in pieces(rows[order], source.bytes_per_row):
            if closed.is_set():
                raise CancelledError
            jax.tree.map(partial(_fill, filled), block, source.gather(piece))
            filled += len(piece)
        return Block(block, Positions(positions, first_step=start.astype(np.int32)))

    return gather, size


def _rows_in_order(batch: int, n: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return `draw(start)`, which returns the rows (members, n, batch) of n steps from `start` in stored order."""

    def draw(start: np.ndarray) -> np.ndarray:
        steps = start[:, None] + np.arange(n)
        return steps[:, :, None] * batch + np.arange(batch)

    return draw


def _row_drawer(job: Job, count: int | np.ndarray, n: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return `draw(start)`, which draws the rows (members, n, batch) of n steps from `start` on the CPU.

    On an accelerator, the draw would have to wait for the running chunk.
    """
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS excludes the CPU
        host = jax.local_devices()[0]
    keys, hyper = jax.device_put((job.members.keys, index_tree(job.members.hyper, 0)), host)
    same, sizes = (count, None) if isinstance(count, int) else (None, count)

    def draw(start: np.ndarray) -> np.ndarray:
        with jax.default_device(host):
            return np.asarray(
                _draw_rows(job.ensemble, keys, hyper, sizes, start.astype(np.int32), n=n, n_examples=same)
            )

    return draw


@compiled(static=("n", "n_examples"))
def _draw_rows(
    ensemble: Ensemble,
    keys: Key,
    hyper: PyTree,
    sizes: jax.Array | None,
    start: jax.Array,
    *,
    n: int,
    n_examples: int | None,
) -> jax.Array:
    """Draw the rows (members, n, batch) of n steps. Members have `sizes` examples, or all have `n_examples`."""
    run = ensemble.run(hyper)

    def draw(member: tuple[Key, jax.Array, jax.Array | None]) -> jax.Array:
        key, step, size = member
        count = n_examples if size is None else size
        assert count is not None
        return batch_rows(run, key, step, count, n)

    members = (keys, jnp.asarray(start), sizes)
    # Other generators draw different numbers under vmap
    return jax.vmap(draw)(members) if str(jax.random.key_impl(keys)) == "threefry2x32" else lax.map(draw, members)


def to_device(ensemble: Ensemble, block: Block) -> Block:
    """Put a block on the device. On a CPU, which shares the host's memory, nothing is copied."""
    data: Data = jax.device_put(block.data) if ensemble.mesh is None else replicate(ensemble, block.data)
    return Block(data, shard_members(ensemble, block.positions))


def _empty_aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an uninitialised array whose memory begins at a multiple of 64 bytes, so that JAX does not copy it."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    begin = -memory.__array_interface__["data"][0] % 64
    return memory[begin : begin + size].view(dtype).reshape(shape)


def _fill(start: int, array: np.ndarray, part: np.ndarray) -> None:
    array[start : start + len(part)] = part
