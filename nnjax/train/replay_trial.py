"""Repeat one trial of a search."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nnjax import checks
from nnjax.data._transfers import allow_transfers
from nnjax.train.engine.distributed import refuse_forked_process
from nnjax.train.engine.ensemble import Ensemble, Strategy, index_tree
from nnjax.train.engine.fit_state import FitState
from nnjax.train.engine.job import Job, first_state
from nnjax.train.engine.make_job import make_job
from nnjax.train.engine.options import FitOptions
from nnjax.train.engine.placement import copy_tree, shard_members, snapshot, to_host
from nnjax.train.engine.search.groups import GROUP_KEEP, WithStructure, check_structure, group_rounds, split_space
from nnjax.train.engine.search.loop import advance_function
from nnjax.train.engine.search.methods import KEEP, METHODS
from nnjax.train.engine.search.population import Networks, networks_of, population_programs
from nnjax.train.engine.search.results import SCORE, Table, TrialNetwork
from nnjax.train.folds import Folds
from nnjax.train.replay import STRIDE, Replay, finite_leaves, is_bad, make_replay
from nnjax.train.search import MethodName, check_rungs, repeat_rows, rung_steps
from nnjax.train.space import Dimension, check_space
from nnjax.types import Data, Key, PyTree, Trainable


class TrialReplay(NamedTuple):
    """A trial of a search that was trained again, see `replay_trial`."""

    network: TrialNetwork | None  # as in the result of the search; None if the trial diverged before any rung
    scores: dict[float, float]  # score at each rung that the trial reached, by epochs; for a copy, not its ancestors'
    origin: Replay | None  # origin of the first non-finite value, if the trial diverged


class _Part(NamedTuple):
    """Training of a trial from one rung to another. A trial that "pbt" copied also has a part for each ancestor."""

    row: Mapping[str, Any]  # row of the table with the hyper-parameters
    start: int  # number of rungs reached before this part
    stop: int  # number of rungs reached after this part


@allow_transfers
def replay_trial(
    make_run: Callable[[dict[str, Any]], Trainable],
    space: Mapping[str, Dimension],
    data: Any,
    table: Table,
    trial: int,
    *,
    validation: Data | tuple[Any, ...] | None = None,
    trials: int,
    population: int,
    rungs: Sequence[float],
    keep: float | None = None,
    method: MethodName = "halving",
    patience: int | None = None,
    score: str = "loss",
    key: Key | None = None,
    seeds: int = 1,
    folds: Folds | None = None,
    strategy: Strategy | None = None,
    mesh: Mesh | None = None,
) -> TrialReplay:
    """Train one trial of a `search` again, up to the last rung that it reached or until it diverges.

    Pass the same arguments as to the search. On the same machine, the scores and the network are then bitwise
    identical, because the same program runs, with only this trial. If "pbt" copied the trial, training begins with its
    first ancestor.

    Args:
      make_run: see `search`.
      space: see `search`.
      data: see `search`.
      table: the table in the result of the search.
      trial: number of the trial in the table.
      validation: see `search`.
      trials: see `search`.
      population: see `search`.
      rungs: see `search`.
      keep: see `search`.
      method: see `search`.
      patience: see `search`. It has no effect, because the table says where the trial was stopped.
      score: see `search`.
      key: see `search`.
      seeds: see `search`.
      folds: see `search`.
      strategy: see `search`.
      mesh: see `search`.

    Returns:
      `TrialReplay(network, scores, origin)`. The network is from the rung with the lowest score. If the trial diverged,
      `origin` names the layer, the operation and the rows of the data, see `replay`.

    Raises:
      ValueError: if the table has no such trial or does not match the space and the rungs, if the trial is a copy that
        ended before its first rung, or if the validation data or folds of the search are missing; also as raised by
        `search`.
      TypeError: if the table is not a list of rows; also as raised by `search`.

    >>> digits = data.load("digits")
    >>> make = lambda hp: train.Run(nn.mlp([16], 10), losses.cross_entropy, optim.adam(hp["rate"]), batch_size=32)
    >>> space = {"rate": train.log_uniform(1e-4, 1e-1)}
    >>> arguments = {"validation": digits.test, "trials": 4, "population": 2, "rungs": (1, 2)}
    >>> result = train.search(make, space, digits.train, **arguments)
    >>> replay = train.replay_trial(make, space, digits.train, result.table, result.best.trial, **arguments)
    >>> replay.network.score == result.best.score
    True
    """
    refuse_forked_process("replay_trial")
    checks.function_of("replay_trial", "make_run", make_run, "hyper")
    dimensions, epochs = check_space("replay_trial", space), check_rungs(rungs)
    checks.positive_int("replay_trial", "trial", trial, 0)
    checks.one_of("replay_trial", "method", method, METHODS)
    for name, number in (("trials", trials), ("population", population), ("seeds", seeds)):
        checks.positive_int("replay_trial", name, number)
    key = checks.key("replay_trial", jax.random.key(0) if key is None else key)
    _check_table(table)
    parts = _parts(table, trial, epochs)
    row = parts[-1].row
    missing = [name for name in dimensions if name not in row]
    if missing:
        raise ValueError(f"replay_trial: the table has no column {missing[0]!r}; pass the space of the search")
    fixed = tuple((name, row[name]) for name, d in dimensions.items() if d.kind == "structure")
    names = [name for name, d in dimensions.items() if d.kind != "structure"]
    replicates = seeds if folds is None else len(folds.train.table)
    keys = key[None] if folds is None and seeds == 1 else jax.random.split(key, replicates)
    build = WithStructure(make_run, fixed) if fixed else make_run
    check_structure(build, {name: row[name] for name in names})

    _, structures = split_space(dimensions)
    share = KEEP.get(method, 1 / 3) if keep is None else keep
    slots = min(population, _count(group_rounds(len(structures), trials, GROUP_KEEP.get(method, share)), trial))

    def hyper(row: Mapping[str, Any]) -> dict[str, Any]:
        return {name: jnp.asarray(np.repeat(np.asarray(row[name]), slots * replicates)) for name in names}

    job = make_job(
        Ensemble(build, slots * replicates, strategy, mesh),
        jnp.tile(keys, slots),
        hyper(parts[0].row),
        data,
        options=FitOptions(epochs=epochs[-1], validate_every=2**31 - 1),
        folds=None if folds is None else Folds(*(repeat_rows(rows, slots) for rows in folds)),
        validation=validation,
    )
    job = job._replace(numbered=replicates > 1)
    ends = rung_steps(job, epochs, replicates)
    if job.held_out is None:
        raise ValueError("replay_trial: pass the validation= or the folds= of the search")
    trained = _train(job, parts, ends, hyper, score)
    scores = {epochs[rung]: value for rung, value in trained.scores.items()}
    if not trained.scores:
        return TrialReplay(None, scores, trained.origin)
    best = min(trained.scores, key=trained.scores.__getitem__)
    network = trained.networks[best] if replicates > 1 else index_tree(trained.networks[best], 0)
    settings = {name: row[name] for name in dimensions}
    run = build({name: jnp.asarray(row[name]) for name in names})
    several = replicates if replicates > 1 else None
    network_of_trial = TrialNetwork(trial, settings, trained.scores[best], epochs[best], run, *network, several)
    return TrialReplay(network_of_trial, scores, trained.origin)


class _Trained(NamedTuple):
    scores: dict[int, float]  # score at each rung
    networks: dict[int, Networks]  # networks at each rung, on the host
    origin: Replay | None


def _train(
    job: Job, parts: Sequence[_Part], ends: np.ndarray, hyper: Callable[[Mapping[str, Any]], PyTree], score: str
) -> _Trained:
    """Train all parts in sequence, and compute the score at each rung of the last part."""
    replicates, sign = len(ends), -1.0 if score.startswith("-") else 1.0
    members = job.ensemble.members
    due = np.arange(members // replicates) == 0
    own = np.repeat(due, replicates)
    programs, advance = population_programs(job, replicates), advance_function(job)
    first = first_state(job, validated=False)
    finite = finite_leaves(first)
    fs, done = copy_tree(first), np.zeros(members, np.int64)
    scores: dict[int, float] = {}
    networks: dict[int, Networks] = {}
    for part in parts:
        job = job._replace(members=job.members._replace(hyper=hyper(part.row)))
        placed = programs.place(job.members.hyper)
        for rung in range(part.start, part.stop):
            until = np.where(own, np.tile(ends[:, rung], len(due)), 0)
            while (done < until).any():
                before, start = snapshot(job.ensemble, fs), done
                done = np.minimum(done + STRIDE, until)
                fs, status = advance(fs, placed, start, done)
                if (status.diverged[own] >= 0).any():
                    return _Trained(scores, networks, _origin(job, before, placed, start, done, finite))
            if part is not parts[-1]:
                continue
            logged = to_host(job.ensemble, programs.score(fs, placed, due))
            value = sign * float(np.mean(np.asarray(logged[score.removeprefix("-")], float)[own]))
            if not math.isfinite(value):
                return _Trained(scores, networks, None)
            scores[rung] = value
            trial_networks = networks_of(job.ensemble, fs, placed)
            networks[rung] = jax.tree.map(lambda a: jnp.asarray(a)[:replicates], trial_networks)
    return _Trained(scores, networks, None)


def _origin(
    job: Job, before: FitState, hyper: PyTree, start: np.ndarray, stop: np.ndarray, finite: list[Any]
) -> Replay | None:
    """Return the replay of the first step that produces a non-finite value; None if all values are finite.

    Args:
      job: the job of the population, in which only the members of the first slot are trained.
      before: (members, ...) the state at the step `start` of each member, on the host.
      hyper: the hyper-parameters, on the devices.
      start: (members,) the step of `before`, at which everything is finite.
      stop: (members,) the step at which a value was found to be non-finite.
      finite: see `finite_leaves`.
    """
    advance = advance_function(job)
    fs: FitState = copy_tree(shard_members(job.ensemble, before))
    last = before
    for step in range(STRIDE):
        fs, _ = advance(fs, hyper, np.minimum(start + step, stop), np.minimum(start + step + 1, stop))
        bad = np.asarray(to_host(job.ensemble, is_bad(fs, finite)))
        if bad.any():
            return make_replay(job, last, int(np.flatnonzero(bad)[0]))
        last = snapshot(job.ensemble, fs)
    return None


def _count(rounds: Sequence[Sequence[int]], trial: int) -> int:
    """Return the number of trials that begin in the same group and round as the given trial."""
    counts = [count for counts in rounds for count in counts]
    return counts[int(np.searchsorted(np.cumsum(counts), trial, side="right"))]


def _check_table(table: Any) -> None:
    """Raise TypeError unless the table is a list of rows, one for each trial."""
    if isinstance(table, Sequence) and table and all(isinstance(row, Mapping) and "trial" in row for row in table):
        return
    raise TypeError(
        "replay_trial: table must be the table of the search, a list with a dictionary for each trial, got "
        f"{type(table).__name__}; for a DataFrame, pass table.to_dict('records')"
    )


def _parts(table: Table, trial: int, epochs: Sequence[float]) -> list[_Part]:
    """Return the parts of a trial, starting with the parts of its ancestors."""
    rows = {int(row["trial"]): row for row in table}
    if trial not in rows:
        raise ValueError(f"replay_trial: the table has no trial {trial}; expected 0 to {max(rows)}")
    row = rows[trial]
    columns = [f"{SCORE}{e:g}" for e in epochs]
    if any(name not in row for name in columns):
        got = ", ".join(name for name in row if name.startswith(SCORE))
        raise ValueError(f"replay_trial: pass the rungs of the search; the table has the columns {got}")
    scored = [i for i, name in enumerate(columns) if math.isfinite(row[name])]
    parent = int(row.get("parent", -1))
    if parent < 0:
        start = 0
    elif scored:
        start = scored[0]
    else:
        raise ValueError(
            f"replay_trial: trial {trial} is a copy that ended before its first rung, so the table does not say where "
            "it began"
        )
    stop = min(len(epochs), (scored[-1] + 1 if scored else start) + (row["status"] == "diverged"))
    if parent < 0:
        return [_Part(row, 0, stop)]
    ancestors = _parts(table, parent, epochs)
    cut = [part._replace(stop=min(part.stop, start)) for part in ancestors if part.start < start]
    return [*cut, _Part(row, start, stop)]
