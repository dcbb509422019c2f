"""Write the checkpoints of a search, and continue a search from its latest checkpoint."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, Protocol, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.storage import background_writer, checkpoint
from nnjax.storage.json_file import check_kind
from nnjax.train.engine.errors import RunMismatchError
from nnjax.train.engine.fingerprint import Fingerprint, differences, run_fingerprint
from nnjax.train.engine.fit_state import FitState
from nnjax.train.engine.job import Job, first_state, state_shapes
from nnjax.train.engine.placement import shard_members, snapshot
from nnjax.train.engine.search.population import Networks, networks_of
from nnjax.train.engine.search.schedule import Schedule, SearchState
from nnjax.train.engine.search.schedule import first_state as first_search_state

KIND = "nnjax-search"
REMEDY = (
    "if only nnjax has changed, continue with the version that began the search; otherwise pass its arguments, or "
    "choose another out= to begin again"
)
KEPT_CHECKPOINTS = 2  # if one is damaged, the other one can be used


@dataclass(frozen=True)
class SearchOptions:
    """The options of the loop that runs a search. They do not affect the scores."""

    folder: Path | None = None
    resume: Any = False  # True, False or "anyway"
    save_every: float = 30.0
    networks: int = 10  # number of trials whose networks are kept


class Position(NamedTuple):
    """The state of a search that is saved in a checkpoint."""

    fs: FitState  # (members, ...) the current state of the population
    search: SearchState  # the state of the schedule at the beginning of the round
    networks: Networks  # (networks · replicates, ...) the networks of the best trials
    trials: np.ndarray  # (networks,) the trial of each of these networks, or -1


class Metadata(TypedDict):
    """The metadata of a checkpoint."""

    kind: str
    fingerprint: dict[str, str]
    steps: int
    logs: list[str]  # names of the scalars in the ledger
    step: NotRequired[int]  # the writer adds the number in the file's name, and an empty score
    score: NotRequired[None]


class SavePosition(Protocol):
    """Write a checkpoint in the background; with `wait=True`, wait until it is on disk. Return True if it is saved."""

    def __call__(self, position: Position, steps: int, *, wait: bool) -> bool: ...


@contextmanager
def resumable_search(
    job: Job, schedule: Schedule, options: SearchOptions, earlier: Position | None
) -> Iterator[tuple[Position, int, SavePosition]]:
    """Yield the state to start from, its number of steps, and a function that saves checkpoints.

    Args:
      job: the population.
      schedule: the schedule of the search.
      options: settings for checkpoints, and the number of networks to keep.
      earlier: the position after the group's previous round; None in the first round.
    """
    search, _ = first_search_state(schedule, None if earlier is None else earlier.search.ledger)
    trials = np.full(options.networks, -1) if earlier is None else earlier.trials
    shapes = _network_shapes(job, len(trials) * len(schedule.ends))

    def fresh() -> Position:
        drawn = first_state(job, validated=False)
        networks = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes) if earlier is None else earlier.networks
        return Position(jax.tree.map(jnp.copy, drawn), search, jax.tree.map(jnp.copy, networks), trials)

    folder = options.folder
    if folder is None:
        yield fresh(), 0, lambda position, steps, *, wait: False
        return
    fingerprint = search_fingerprint(job, schedule, options)
    with background_writer.checkpoint_writer(folder, KEPT_CHECKPOINTS, write=jax.process_index() == 0) as write:

        def save(position: Position, steps: int, *, wait: bool) -> bool:
            ensemble = job.ensemble
            tree = position._replace(
                fs=snapshot(ensemble, position.fs), networks=jax.tree.map(jnp.copy, position.networks)
            )
            names = sorted(position.search.ledger.logs)
            metadata: Metadata = {"kind": KIND, "fingerprint": fingerprint, "steps": steps, "logs": names}
            return write(steps, tree, {**metadata}, wait=wait)

        like = Position(state_shapes(job, validated=False), search, shapes, trials)
        saved = _load(folder, options, fingerprint, like)
        if saved is None:
            yield fresh(), 0, save
        else:
            position, steps = saved
            fs = jax.tree.map(jnp.copy, shard_members(job.ensemble, position.fs))
            yield position._replace(fs=fs, networks=jax.tree.map(jnp.asarray, position.networks)), steps, save


def search_fingerprint(job: Job, schedule: Schedule, options: SearchOptions) -> Fingerprint:
    """Return the fingerprint of a search: everything that determines its exact result."""
    patience = {} if schedule.patience is None else {"patience": str(schedule.patience)}
    return {
        **run_fingerprint(job),
        "space": "; ".join(f"{d.kind} {d.values}" for d in schedule.dimensions),
        "trials": str(schedule.trials),
        "population": str(schedule.slots),
        "rungs": ", ".join(map(str, schedule.ends.max(0))),
        "keep": f"{schedule.keep:.17g}",
        "method": schedule.method.name,
        "score": schedule.score,
        "draws": checkpoint.digest(np.asarray(schedule.key))[:16],
        "networks": str(options.networks),
        **patience,
    }


def _load(
    folder: Path, options: SearchOptions, fingerprint: Fingerprint, like: Position
) -> tuple[Position, int] | None:
    """Return the latest intact checkpoint in a folder and its number of steps, or None if there is none."""
    files = checkpoint.files(folder)
    if not files:
        return None
    if not options.resume:
        raise FileExistsError(
            f"{folder} contains checkpoints up to {files[-1].name}; continue the search with resume=True, or choose "
            "another out="
        )
    saved = _saved_metadata(folder, files)
    rows = differences(saved["fingerprint"], fingerprint)
    if rows and options.resume != "anyway":
        raise RunMismatchError(folder, rows, reason=_misfit(files[-1], like))
    try:
        _, position, metadata = checkpoint.latest(folder, _like(like))
    except ValueError as error:
        raise ValueError(f"search: cannot continue the search saved in {folder}: {error}\n{REMEDY}") from error
    return position, int(metadata["steps"])


def _misfit(path: Path, like: Position) -> str | None:
    """Describe how the structure of a checkpoint differs from `like`; return None if it does not."""
    try:
        checkpoint.load(path, _like(like))
    except ValueError as error:
        return str(error)
    return None


def _saved_metadata(folder: Path, files: list[Path]) -> Metadata:
    """Return the metadata of the newest checkpoint whose metadata can be read."""
    for path in reversed(files):
        try:
            content = checkpoint.read_metadata(path)
        except (ValueError, OSError) as error:
            warnings.warn(f"{path} cannot be read ({error})", stacklevel=2)
            continue
        if content.get("kind") != KIND:
            raise ValueError(f"search: {path} was not written by search; choose another out=")
        try:
            metadata: Metadata = check_kind("its metadata", content, Metadata)
        except ValueError as error:
            raise ValueError(f"search: cannot continue the search saved in {path}: {error}\n{REMEDY}") from None
        return metadata
    raise ValueError(f"search: {folder} holds no intact checkpoint; delete it to start again")


def _like(like: Position) -> Callable[[dict[str, Any]], Position]:
    """Return a function from a checkpoint's metadata to the structure of its tree."""

    def tree_like(metadata: dict[str, Any]) -> Position:
        ledger = like.search.ledger
        shape = (*ledger.scores.shape, ledger.diverged.shape[1])
        logs = {name: np.zeros(shape) for name in metadata["logs"]}
        return like._replace(search=like.search._replace(ledger=ledger._replace(logs=logs)))

    return tree_like


def _network_shapes(job: Job, count: int) -> Networks:
    """Return the shapes of `count` networks."""
    members = jax.eval_shape(
        lambda fs, hyper: networks_of(job.ensemble, fs, hyper), state_shapes(job, validated=False), job.members.hyper
    )
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((count, *a.shape[1:]), a.dtype), members)
