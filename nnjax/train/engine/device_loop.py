"""The compiled programs of a `fit`: its start, a chunk of steps, a validation. Each is compiled once."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from nnjax.train.engine.ensemble import Program, each_member, over_batch
from nnjax.train.engine.fit_state import FitState, advance, alive, freeze, judge, start
from nnjax.train.folds import Rows
from nnjax.train.run import Log, length, take
from nnjax.types import Data, Key, PyTree

ROWS = 8192  # drawn at once: fewer cost more each, more are wasted in a short chunk
CAPACITY = 1024  # steps whose logs fit into one chunk

Carry = tuple[FitState, Log]


class Place(NamedTuple):
    """Where in a block the examples of consecutive steps are; with a leading axis for all members."""

    rows: Array | np.ndarray  # (steps, batch) int32
    start: Array | np.ndarray  # () int32, the first of the steps


class Block(NamedTuple):
    """Examples that the host gathered for all members."""

    data: Data
    place: Place


class Member(NamedTuple):
    """What a chunk takes of one member, or with a leading axis of all."""

    fs: FitState | None = None
    hyper: PyTree = None  # what the run is made from; None for a run that is given
    rows: Rows | None = None  # of the data; None for all of them
    place: Place | None = None  # where the host gathers the examples
    until: Array | None = None  # () int32, the step to stop at


class Status(NamedTuple):
    """Whether a member still runs."""

    diverged: Array  # () int32, the step whose loss was not finite; -1 for none
    alive: Array  # () bool


@partial(jax.jit, static_argnames=("program", "validated"))
def begin(program: Program, keys: Key, hyper: PyTree, data: Data, *, validated: bool) -> FitState:
    """The state before the first step. Those that only fill up the devices are stopped from the beginning."""
    member = jnp.arange(program.padded) if program.members is not None else jnp.zeros((), jnp.int32)

    def one(each: tuple[Key, PyTree, Array], data: Data) -> FitState:
        key, hyper, member = each
        stopped = member >= (program.members or 1)
        return start(program.run(hyper).init(key, data), validated=validated, stopped=stopped)

    mapped = replace(program, strategy="map")  # vmapped draws compile slowly
    return each_member(mapped, one, (keys, hyper, member), data)


@partial(jax.jit, static_argnames="program", donate_argnames="fs")
def chunk(program: Program, fs: FitState, each: Member, data: Data, n: Array) -> tuple[FitState, Log, Status]:
    """`n` ≤ CAPACITY steps, `n` known only when the program runs.

    One loop with a trip count that is an argument, not a scan: it compiles once for every length, and a run cut into
    chunks any way has the same bits. (XLA inlines a scan of length 1 and then rounds otherwise.)

    Args:
      program: what to run.
      fs: the state before, whose memory is given to the state after.
      each: the rest of what each member has of its own.
      data: all examples, or those that the host gathered.
      n: () int32.

    Returns:
      The state after; the logs of the steps, (CAPACITY,) for each member, of which the first count that it took;
      and whether it still runs.
    """

    def one(member: Member, shared: tuple[Data, Array]) -> tuple[FitState, Log, Status]:
        fs, logs = _steps(program, member, *shared)
        return fs, logs, Status(fs.diverged, alive(fs))

    return each_member(program, one, each._replace(fs=fs), (data, n))


@partial(jax.jit, static_argnames="program", donate_argnames="fs")
def validation(
    program: Program, fs: FitState, hyper: PyTree, rows: Rows | None, data: Data, patience: Array
) -> tuple[FitState, Log, Status]:
    """The scores of the networks as they are, and the state with the best of them kept."""

    def one(each: tuple[FitState, PyTree, Rows | None], shared: tuple[Data, Array]) -> tuple[FitState, Log, Status]:
        fs, hyper, rows = each
        data, patience = shared
        log = program.run(hyper).evaluate(fs.train, data if rows is None else chosen(data, rows))
        fs = judge(fs, log["loss"], patience)
        return fs, log, Status(fs.diverged, alive(fs))

    return each_member(program, one, (fs, hyper, rows), (data, patience))


def chosen(data: Data, rows: Rows) -> Data:
    """The rows of a member as data of its own: those that only fill up weigh nothing."""
    part = take(data, rows.table)
    counted = (jnp.arange(rows.table.shape[-1]) < rows.sizes).astype(jnp.result_type(float))
    return part._replace(weights=counted if part.weights is None else part.weights * counted)


def _steps(program: Program, member: Member, examples: Data, n: Array) -> tuple[FitState, Log]:
    """The steps of one member."""
    run, fs, rows, place, until = program.run(member.hyper), member.fs, member.rows, member.place, member.until
    assert fs is not None
    assert until is not None
    # All in step: then the loop's counter must not be one for each member
    together = program.strategy == "vmap" and program.members is not None
    table = None if rows is None or place is not None else jnp.asarray(rows.table)

    def goes_on(fs: FitState) -> Array:
        return alive(fs) & (fs.train.step < until)

    def loop(n: Array, body: Callable[[Array, Carry], Carry], carry: Carry) -> Carry:
        def condition(at: tuple[Array, Carry]) -> Array:
            i, (fs, _) = at
            return i < n if together else (i < n) & goes_on(fs)

        return lax.while_loop(condition, lambda at: (at[0] + 1, body(*at)), (jnp.zeros_like(n), carry))[1]

    def batch(rows: Array) -> Data:
        return over_batch(program, take(examples, rows if table is None else table[rows]))

    def step(i: Array, carry: Carry, batch: Data) -> Carry:
        fs, logs = carry
        ts, log = run.step(fs.train, batch)
        new, loss = advance(fs, ts, log["loss"]), log["loss"]
        if together:
            new = freeze(goes_on(fs), new, fs)
            loss = jnp.where(goes_on(fs), loss, jnp.full_like(loss, jnp.nan))
        return new, {"loss": logs["loss"].at[i].set(loss)}

    size = run.batch_size or length(examples)
    example = jax.ShapeDtypeStruct((size,), jnp.int32)
    dtype = jax.eval_shape(lambda rows: run.step(fs.train, batch(rows))[1]["loss"], example).dtype
    carry: Carry = fs, {"loss": jnp.full((CAPACITY,), jnp.nan, dtype)}

    if run.batch_size is None:
        full = over_batch(program, examples if table is None else take(examples, table))
        return loop(n, lambda i, carry: step(i, carry, full), carry)

    if place is not None:
        where, first = jnp.asarray(place.rows), fs.train.step - place.start
        last = where.shape[0] - 1  # which only frozen members get beyond
        return loop(n, lambda i, carry: step(i, carry, batch(where[jnp.clip(first + i, 0, last)])), carry)

    count = length(examples) if rows is None else jnp.asarray(rows.sizes)
    # Steps whose rows are drawn at once: fewer in a large ensemble, whose chunks are short
    several = min(CAPACITY, max(1, ROWS // size // min(program.members or 1, 16)))

    def draw_and_step(b: Array, carry: Carry) -> Carry:
        drawn, first = run.rows(carry[0].train, count, several), b * several
        return loop(jnp.minimum(several, n - first), lambda i, carry: step(first + i, carry, batch(drawn[i])), carry)

    return loop((n + several - 1) // several, draw_and_step, carry)
