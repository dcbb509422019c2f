"""Define the programs of `fit`, each compiled once: initialisation, a chunk of steps, and validation."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from nnjax.data import n_rows, take_rows
from nnjax.train.engine.compiled import compiled
from nnjax.train.engine.ensemble import Ensemble, map_members
from nnjax.train.engine.fit_state import (
    FitState,
    initial_fit_state,
    is_running,
    record_step,
    record_validation,
    tree_where,
)
from nnjax.train.engine.placement import shard_batch
from nnjax.train.engine.trainable import batch_rows, check_scores, evaluation_params, initial_train_state, take_step
from nnjax.train.folds import Rows
from nnjax.types import Data, Key, Log, PyTree

ROWS = 8192  # rows drawn at once: with fewer, each row takes longer; with more, short chunks waste rows
CAPACITY = 1024  # largest number of steps in a chunk, and the length of its logs

Carry = tuple[FitState, Log]


class Positions(NamedTuple):
    """Indices into a block that select the examples for consecutive steps; (members, ...) for an ensemble."""

    rows: Array | np.ndarray  # (steps, batch) int32
    first_step: Array | np.ndarray  # () int32, the first of these steps


class Block(NamedTuple):
    """Examples for all members, usually gathered by the host."""

    data: Data
    positions: Positions | None  # None if the block contains all examples


class MemberArgs(NamedTuple):
    """Per-member arguments of a chunk, stacked along a leading axis."""

    hyper: PyTree = None  # hyper-parameters for `make_run`; None if the run is fixed
    rows: Rows | None = None  # data rows to use; None means all rows
    positions: Positions | None = None  # positions of the examples in the block; None if the data are on the device
    until: Array | None = None  # () int32, the step to stop at


class Status(NamedTuple):
    """The status of a member: whether it is running, the step in which it diverged, and the number of steps taken."""

    diverged: Array  # () int32, the step with a non-finite loss, or -1
    running: Array  # () bool
    step: Array  # () int32


def _status(fs: FitState) -> Status:
    return Status(fs.diverged, is_running(fs), fs.train.step)


@compiled(static=("validated",))
def initial_states(
    ensemble: Ensemble, keys: Key, hyper: PyTree, start: PyTree, data: Data, *, validated: bool
) -> FitState:
    """Return the initial state. Padding members (added to fill all devices) start stopped."""

    def initial_state(member: tuple[Key, PyTree, PyTree, Array], data: Data) -> FitState:
        key, hyper, start, index = member
        ts = initial_train_state(ensemble.run(hyper), key, data, start)
        return initial_fit_state(ts, validated=validated, stopped=index >= ensemble.members)

    members = (keys, hyper, start, jnp.arange(ensemble.padded))
    return map_members(replace(ensemble, strategy="map"), initial_state, members, data)  # vmap compiles slowly here


@compiled(donated=("fs",))
def train_chunk(
    ensemble: Ensemble, fs: FitState, args: MemberArgs, data: Data, n: Array
) -> tuple[FitState, Log, Status]:
    """Take `n` ≤ CAPACITY steps with every member.

    The program is not a scan but a loop, whose number of iterations is an argument. It is therefore compiled only once,
    and results are bitwise identical for all chunk lengths. XLA would inline a scan of length 1 and round differently.

    Args:
      ensemble: the runs, and how their members are executed.
      fs: the state before the steps; its memory is reused.
      args: the arguments of each member.
      data: all examples, or the examples that the host gathered.
      n: () int32, number of steps.

    Returns:
      The state after the steps; the logs (members, CAPACITY), whose entries after the last step are undefined; and the
      status of each member.
    """

    def train_member(member: tuple[FitState, MemberArgs], shared: tuple[Data, Array]) -> tuple[FitState, Log, Status]:
        fs, logs = _steps(ensemble, *member, *shared)
        return fs, logs, _status(fs)

    return map_members(ensemble, train_member, (fs, args), (data, n))


@compiled(donated=("fs",))
def validate(
    ensemble: Ensemble, fs: FitState, args: MemberArgs, data: Data, patience: Array
) -> tuple[FitState, Log, Status]:
    """Evaluate every member, and record its score. `args.rows` are the rows that each member is validated on."""

    def validate_member(
        member: tuple[FitState, MemberArgs], shared: tuple[Data, Array]
    ) -> tuple[FitState, Log, Status]:
        (fs, args), (data, patience) = member, shared
        examples = data if args.rows is None else select_rows(data, args.rows)
        run = ensemble.run(args.hyper)
        log = check_scores(run.evaluate(fs.train, examples))
        fs = record_validation(fs, log["loss"], patience, evaluation_params(run, fs.train))
        return fs, log, _status(fs)

    return map_members(ensemble, validate_member, (fs, args), (data, patience))


def select_rows(data: Data, rows: Rows) -> Data:
    """Return the data rows of one member. Padding rows get weight 0."""
    part = take_rows(data, rows.table)
    counted = (jnp.arange(rows.table.shape[-1]) < rows.sizes).astype(jnp.result_type(float))
    return part._replace(weights=counted if part.weights is None else part.weights * counted)


def _steps(ensemble: Ensemble, fs: FitState, args: MemberArgs, examples: Data, n: Array) -> tuple[FitState, Log]:
    """Take the steps of one member."""
    run, rows, positions, until = ensemble.run(args.hyper), args.rows, args.positions, args.until
    assert until is not None
    assert ensemble.block is not None
    block = ensemble.block
    lockstep = ensemble.lockstep  # if true, all members must share one loop counter
    table = None if rows is None or positions is not None else jnp.asarray(rows.table)

    def continues(fs: FitState) -> Array:
        return is_running(fs) & (fs.train.step < until)

    def loop(n: Array, body: Callable[[Array, Carry, Array | None], Carry], carry: Carry, block: int) -> Carry:
        """Call `body(i, carry, active)` for i < n, in blocks. Steps that are not `active` must not change anything."""

        def condition(loop_state: tuple[Array, Carry]) -> Array:
            i, (fs, _) = loop_state
            return i < n if lockstep else (i < n) & continues(fs)

        def advance(loop_state: tuple[Array, Carry]) -> tuple[Array, Carry]:
            i, carry = loop_state
            if block == 1:
                return i + 1, body(i, carry, continues(carry[0]) if lockstep else None)

            def one_step(carry: Carry, k: Array) -> tuple[Carry, None]:
                return body(k, carry, (k < n) & continues(carry[0])), None

            return i + block, lax.scan(one_step, carry, i + jnp.arange(block, dtype=i.dtype))[0]

        return lax.while_loop(condition, advance, (jnp.zeros_like(n), carry))[1]

    def batch(rows: Array) -> Data:
        return shard_batch(ensemble, take_rows(examples, rows if table is None else table[rows]))

    def step(i: Array, carry: Carry, batch: Data, active: Array | None) -> Carry:
        fs, logs = carry
        ts, log = take_step(run, fs.train, batch)
        new = record_step(fs, ts, log)
        if active is not None:
            new = tree_where(active, new, fs)
        return new, {name: values.at[i].set(log[name]) for name, values in logs.items()}

    def log_of(batch: Callable[[Array], Data]) -> Log:
        example = jax.ShapeDtypeStruct((run.batch_size or n_rows(examples),), jnp.int32)
        return jax.eval_shape(lambda rows: take_step(run, fs.train, batch(rows))[1], example)

    def empty(log: Log) -> Log:
        return {name: jnp.zeros((CAPACITY,), value.dtype) for name, value in log.items()}

    if run.batch_size is None:
        full = shard_batch(ensemble, examples if table is None else take_rows(examples, table))
        start = fs, empty(log_of(lambda rows: full))
        return loop(n, lambda i, carry, active: step(i, carry, full, active), start, block)
    carry: Carry = fs, empty(log_of(batch))

    if positions is not None:
        block_rows, first = jnp.asarray(positions.rows), fs.train.step - positions.first_step
        last = block_rows.shape[0] - 1  # only the index of a stopped member exceeds it

        def gathered(i: Array) -> Data:
            return batch(block_rows[jnp.clip(first + i, 0, last)])

        return loop(n, lambda i, carry, active: step(i, carry, gathered(i), active), carry, block)

    count = n_rows(examples) if rows is None else jnp.asarray(rows.sizes)
    # Draw the rows of several steps at once, but of fewer steps in large ensembles, because their chunks are short
    several = min(CAPACITY, max(1, ROWS // run.batch_size // min(ensemble.members, 16)))

    def draw_and_step(b: Array, carry: Carry, _: Array | None) -> Carry:
        ts = carry[0].train
        indices, first = batch_rows(run, ts.key, ts.step, count, several), b * several

        def body(i: Array, carry: Carry, active: Array | None) -> Carry:
            return step(first + i, carry, batch(indices[i]), active)

        return loop(jnp.minimum(several, n - first), body, carry, block)

    return loop((n + several - 1) // several, draw_and_step, carry, 1)
