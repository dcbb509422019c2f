"""Define the programs of a population: compute scores, move networks after a decision, and keep the best ones."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from nnjax.data import sample
from nnjax.train.engine.compiled import compiled
from nnjax.train.engine.device_loop import MemberArgs, select_rows
from nnjax.train.engine.ensemble import Ensemble, index_tree, map_members
from nnjax.train.engine.fit_state import FitState, initial_fit_state
from nnjax.train.engine.job import Job
from nnjax.train.engine.placement import replicate, shard_members
from nnjax.train.engine.search.schedule import Moves
from nnjax.train.engine.trainable import check_scores, evaluation_params, initial_train_state
from nnjax.types import Data, Key, Log, Params, PyTree, State


class Networks(NamedTuple):
    """Networks that are kept after their trial has ended; arrays have a leading axis (networks · replicates, ...)."""

    params: Params  # the parameters that the run evaluates, which may be averages
    state: State


@compiled(donated=("fs",))
def move_members(
    ensemble: Ensemble, fs: FitState, source: Array, fresh: Array, keys: Key, hyper: PyTree, data: Data
) -> FitState:
    """Return the states of the members after a decision: copies of earlier states, or new initial states.

    Args:
      ensemble: the runs.
      fs: (members, ...) the states before the decision; their memory is reused.
      source: (members,) the member whose state each member takes.
      fresh: (members,) bool, True for members that get a new initial state instead.
      keys: (members,) the keys of the runs.
      hyper: (members, ...) the hyper-parameters after the decision.
      data: one example; only its shapes and dtypes are used.
    """

    def move(member: tuple[FitState, Array, Key, PyTree], data: Data) -> FitState:
        fs, fresh, key, hyper = member

        def draw() -> FitState:
            ts = initial_train_state(ensemble.run(hyper), key, data, None)
            return initial_fit_state(ts, validated=False, stopped=jnp.zeros((), bool))

        return lax.cond(fresh, draw, lambda: fs)

    members = (index_tree(fs, source), fresh, keys, hyper)
    return map_members(replace(ensemble, strategy="map"), move, members, data)  # vmap compiles slowly here


@compiled()
def score_members(ensemble: Ensemble, fs: FitState, args: MemberArgs, data: Data, due: Array) -> Log:
    """Evaluate the members that the mask `due` (members,) selects. The scalars of other members are undefined."""

    def score(member: tuple[FitState, MemberArgs, Array], data: Data) -> Log:
        fs, args, due = member
        own = data if args.rows is None else select_rows(data, args.rows)
        run = ensemble.run(args.hyper)

        def evaluate() -> Log:
            scores = check_scores(run.evaluate(fs.train, own))
            return {name: score for name, score in scores.items() if jnp.ndim(score) == 0}

        blank = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(evaluate))
        return lax.cond(due, evaluate, lambda: blank)

    return map_members(ensemble, score, (fs, args, due), data)


@compiled()
def networks_of(ensemble: Ensemble, fs: FitState, hyper: PyTree) -> Networks:
    """Return the networks (members, ...), with the parameters that the runs evaluate."""
    params = jax.vmap(lambda ts, hyper: evaluation_params(ensemble.run(hyper), ts))(fs.train, hyper)
    return Networks(params, fs.train.state)


@compiled(donated=("networks",))
def keep_networks(ensemble: Ensemble, networks: Networks, fs: FitState, hyper: PyTree, index: Array) -> Networks:
    """Return the networks to keep, chosen from the networks kept so far and the population.

    Args:
      ensemble: the runs.
      networks: (networks, ...) the networks so far; their memory is reused.
      fs: (members, ...) the population.
      hyper: (members, ...) the hyper-parameters of the population.
      index: (n,) the source of each network: i < n means place i of `networks`, and n + m means member m.
    """
    members = networks_of(ensemble, fs, hyper)
    count = len(index)

    def select(old: Array, new: Array) -> Array:
        own = (index < count).reshape(-1, *[1] * (old.ndim - 1))
        return jnp.where(own, old[jnp.minimum(index, count - 1)], new[jnp.maximum(index - count, 0)])

    return jax.tree.map(select, networks, members)


class Programs(NamedTuple):
    """The programs of a population, as functions of the arguments that change. NumPy arguments are on the host."""

    place: Callable[[PyTree], PyTree]  # puts hyper-parameters (members, ...) on the devices
    move: Callable[[FitState, Moves, PyTree], FitState]
    score: Callable[[FitState, PyTree, np.ndarray], Log]  # (…, due (slots,)) -> scalars (members,)
    keep: Callable[[Networks, FitState, PyTree, np.ndarray], Networks]


def population_programs(job: Job, replicates: int) -> Programs:
    """Return the programs of a population in which each slot has `replicates` members."""
    ensemble, members = job.ensemble, job.members
    keys, example = shard_members(ensemble, members.keys), replicate(ensemble, sample(job.data))
    held_out, held_out_rows = replicate(ensemble, job.held_out), shard_members(ensemble, members.held_out_rows)
    padding = np.arange(ensemble.members, ensemble.padded)

    def of_members(slots: np.ndarray, padded: np.ndarray) -> np.ndarray:
        return np.concatenate([np.repeat(slots, replicates), padded.astype(slots.dtype)])

    def put(values: np.ndarray) -> Any:
        return shard_members(replace(ensemble, members=ensemble.padded), values)

    def move(fs: FitState, moves: Moves, hyper: PyTree) -> FitState:
        first = np.repeat(moves.source * replicates, replicates)
        source = np.concatenate([first + np.tile(np.arange(replicates), len(moves.source)), padding])
        fresh = of_members(moves.fresh, np.zeros_like(padding))
        return move_members(ensemble, fs, put(source), put(fresh), keys, hyper, example)

    def score(fs: FitState, hyper: PyTree, due: np.ndarray) -> Log:
        args = MemberArgs(hyper=hyper, rows=held_out_rows)
        return score_members(ensemble, fs, args, held_out, put(of_members(due, np.zeros_like(padding))))

    def keep(networks: Networks, fs: FitState, hyper: PyTree, index: np.ndarray) -> Networks:
        return keep_networks(ensemble, networks, fs, hyper, index)

    return Programs(partial(shard_members, ensemble), move, score, keep)
