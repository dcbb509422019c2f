"""Search for the best settings with a population of trials, in which new trials replace bad ones."""

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nnjax import checks
from nnjax.data import n_rows, sample
from nnjax.data._transfers import allow_transfers
from nnjax.storage import checkpoint
from nnjax.train.compare import PairedDifference
from nnjax.train.engine.distributed import refuse_forked_process
from nnjax.train.engine.ensemble import Ensemble, Strategy, index_tree
from nnjax.train.engine.host_loop import Seconds
from nnjax.train.engine.job import Job
from nnjax.train.engine.make_job import epoch_ends, make_job
from nnjax.train.engine.options import FitOptions, Record
from nnjax.train.engine.progress import trials_bar
from nnjax.train.engine.search.draws import key_words
from nnjax.train.engine.search.groups import GROUP_KEEP, WithStructure, check_structure, group_rounds, split_space
from nnjax.train.engine.search.loop import best_scores, hyper_of, run_search
from nnjax.train.engine.search.methods import KEEP, METHODS
from nnjax.train.engine.search.results import (
    COLUMNS,
    SCORE,
    Group,
    Table,
    TrialNetwork,
    advantage_of,
    best_place,
    networks_of_groups,
    numbers_of,
    places,
    rank_correlations,
    table_of,
)
from nnjax.train.engine.search.saving import SearchOptions
from nnjax.train.engine.search.schedule import RUNNING, Ledger, Schedule, first_state
from nnjax.train.engine.search.selection import Selection, select
from nnjax.train.engine.settings import warn_of_unread_settings
from nnjax.train.folds import Folds, Rows
from nnjax.train.space import Dimension, check_space
from nnjax.types import Data, Key, PyTree, Trainable

HIGHER_IS_BETTER = ("accuracy", "top_k_accuracy", "precision", "recall", "f1", "roc_auc", "average_precision", "r2")

MethodName = Literal["random", "halving", "hyperband", "pbt", "tpe"]


class Search(NamedTuple):
    """The result of `search`: a table of all trials, the best networks, and statistics of the scores."""

    best: TrialNetwork | None  # the best trial; None if all trials diverged
    table: Table  # one row per trial, best first: settings, status, epochs, score, score at each rung and more
    networks: list[TrialNetwork]  # the best trials with their networks, best first
    rank_correlations: list[float]  # Spearman's ρ of scores at each earlier rung and at the last; NaN for < 3 trials
    # Score of the second-best trial minus score of the best, over seeds or folds; None if there is one seed or if fewer
    # than two trials are ranked
    advantage: PairedDifference | None
    seconds: Seconds
    validation: Data | None  # validation data, which `ensemble` uses; with folds, the data
    held_out_rows: Rows | None = None  # rows of `validation` that each fold holds out; None means all rows

    def __repr__(self) -> str:
        """Return a summary with the number of trials and the best one."""
        return f"Search(trials={len(self.table)}, networks={len(self.networks)}, best={self.best!r})"

    def ensemble(self, k: int, combine: Callable[[PyTree], PyTree] | None = None) -> Selection:
        """Select an ensemble of `k` networks greedily by the validation loss. It may contain a network several times.

        With folds, a row is predicted only by the networks that were not trained on it.

        Args:
          k: number of members.
          combine: function from predictions (members, n, ...) to the prediction (n, ...). None means the logarithm of
            the mean probabilities if the loss is `losses.cross_entropy`, and the mean otherwise.

        Raises:
          ValueError: if all trials diverged, if the search had no `validation=` and no `folds=`, or if the runs have no
            `loss` or no `predict`.

        Source: Caruana et al. 2004.
        """
        checks.positive_int("Search.ensemble", "k", k)
        if not self.networks or self.validation is None:
            got = "all trials diverged" if self.validation is not None else "the search had no validation data"
            raise ValueError(f"Search.ensemble: cannot select networks on validation data, because {got}")
        return select(self.networks, self.validation, k, combine, self.held_out_rows)


@allow_transfers
def search(
    make_run: Callable[[dict[str, Any]], Trainable],
    space: Mapping[str, Dimension],
    data: Any,
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
    out: str | Path | None = None,
    resume: bool | Literal["anyway"] = False,
    save_every: float = 30.0,
    networks: int = 10,
    callbacks: Sequence[Callable[[Table], bool | None]] = (),
    progress: bool = True,
) -> Search:
    """Search for the settings with the best validation score, in one program that is compiled once per structure.

    A fixed number of trials is trained at the same time. When a trial reaches a rung (a number of epochs), its score
    decides whether it continues or the next trial takes its place. All trials share one key, as in `sweep`. Trial i is
    therefore bitwise equal to a member of a sweep with the same settings (strategy "map", CPU). With
    `rungs=(epochs,)`, no trial is stopped early, and a search (except "tpe") is a sweep over random settings.

    Args:
      make_run: function `{"name": number} -> Run`. As in `sweep`, the numbers are traced, so compute with them, but do
        not branch on them. Values of `train.structure` are passed unchanged, as Python values.
      space: a range or a list for each setting: `train.uniform`, `log_uniform`, `choice` and `structure`.
      data: training data, see `fit`; batches of a source are not prefetched.
      validation: data for the scores of the trials. Hold out separate test data first.
      trials: number of settings to try.
      population: number of trials that are trained at the same time, each with all its seeds or folds. It is limited by
        memory.
      rungs: ascending numbers of epochs after which trials are compared; the last is the full length.
      keep: share of the trials that continue at a rung; None means 1/3, or 0.8 with "pbt". With 1/2, "halving" is
        median stopping: a trial continues if its score is below the median at its rung.
      method: "random" never stops a trial. "halving" keeps the best share of all trials that have reached a rung.
        "hyperband" distributes trials over brackets, which begin to stop trials at different rungs. "tpe" is halving,
        with settings proposed by a model of the previous trials. "pbt" replaces the worst trials with copies of good
        ones with perturbed settings; each copy counts as a trial.
      patience: stop a trial if its score has not improved for this many rungs, with any method; None means no limit.
        With "random" and a rung after each epoch, this is the early stopping of `fit`, and the next trial begins at
        once.
      score: name of an evaluated scalar to minimise. To maximise it, put a minus before the name, as in "-accuracy";
        the scores in the result are then negative accuracies.
      key: random key for the settings and all runs; `jax.random.key(0)` if None.
      seeds: number of runs of each trial, with the keys `jax.random.split(key, seeds)`; the trial's score is the mean.
      folds: rows that the runs of a trial are trained and validated on, instead of seeds; see `k_fold`.
      strategy: see `fit`.
      mesh: see `fit`.
      out: folder for checkpoints; None to save nothing.
      resume: continue from the latest checkpoint in `out`, see `fit`.
      save_every: seconds between checkpoints.
      networks: number of best trials whose networks are kept.
      callbacks: functions of the table so far, called after each decision; one that returns True ends the search.
      progress: see `fit`; the bar shows how many trials have ended, and the best score.

    Returns:
      `Search(best, table, networks, rank_correlations, advantage, seconds, validation, held_out_rows)`. Trials are
      ranked by their lowest score at any rung, and their networks are from this rung; trials that diverged come last.
      To predict, call `best.run.predict(best.params, best.state, x)`. With seeds or folds, parameters and state have a
      leading axis, so call `jax.vmap(best.run.predict, (0, 0, None))` with the same arguments; it returns the
      prediction of each seed or fold. `ensemble(1).predict(x)` combines the predictions of one trial.

    Raises:
      ValueError, TypeError: if an argument is out of range or has the wrong type; also as raised by `sweep`.
      RunMismatchError, FileExistsError, InterruptedRun: as raised by `fit`.

    Warns:
      UserWarning: with seeds or folds, if the best and the second-best trial differ by no more than noise. It is also
        issued if `make_run` does not read a setting.
      RuntimeWarning: if all trials diverged.

    >>> digits = data.load("digits")
    >>> make = lambda hp: train.Run(nn.mlp([16], 10), losses.cross_entropy, optim.adam(hp["rate"]), batch_size=32)
    >>> space = {"rate": train.log_uniform(1e-4, 1e-1)}
    >>> result = train.search(
    ...     make, space, digits.train, validation=digits.test, trials=9, population=3, rungs=(1, 3), networks=2
    ... )
    >>> 1e-3 < result.best.settings["rate"] < 1e-1, len(result.table)
    (True, 9)

    Source: cited in `engine/search`, in the file of each method.
    """
    dimensions, epochs = _check_arguments(make_run, space, rungs, method, callbacks, keep=keep, patience=patience)
    for name, number in (("trials", trials), ("population", population), ("seeds", seeds), ("networks", networks)):
        checks.positive_int("search", name, number)
    checks.flag("search", "progress", progress)
    keep = KEEP.get(method, 1 / 3) if keep is None else float(keep)
    _check_scored(validation, folds, seeds)
    key = checks.key("search", jax.random.key(0) if key is None else key)
    folder = _folder(out, resume, save_every)
    if folder is not None:
        _check_layout(folder, structured=any(d.kind == "structure" for d in dimensions.values()), resume=bool(resume))
    replicates = seeds if folds is None else len(folds.train.table)
    keys = key[None] if folds is None and seeds == 1 else jax.random.split(key, replicates)
    traced, structures = split_space(dimensions)
    names = tuple(traced)

    def begin(index: int, count: int, earlier: Group | None) -> tuple[Group, Job]:
        """Return a new group of `count` trials, or `earlier` with `count` more, and the job of its first new trials."""
        fixed, words = structures[index], key_words(key)
        schedule = Schedule(
            tuple(traced.values()),
            count if earlier is None else count + earlier.schedule.trials,
            slots=min(population, count),
            ends=np.ones((replicates, len(epochs)), int),
            keep=keep,
            score=score,
            key=(*words, index) if fixed else words,
            method=METHODS[method],
            patience=patience,
        )
        state, _ = first_state(schedule, None if earlier is None else earlier.ledger)
        build = WithStructure(make_run, fixed) if fixed else make_run
        check_structure(build, numbers_of(schedule, names, state.ledger, int(state.trial[0])))
        job = make_job(
            Ensemble(build, schedule.slots * replicates, strategy, mesh),
            jnp.tile(keys, schedule.slots),
            hyper_of(schedule, names, state),
            data,
            options=FitOptions(epochs=epochs[-1], validate_every=2**31 - 1),
            folds=None if folds is None else Folds(*(repeat_rows(rows, schedule.slots) for rows in folds)),
            validation=validation,
        )
        _check_runs(job, score, make_run, [] if groups else structures)
        schedule = schedule._replace(ends=rung_steps(job, epochs, replicates))
        begun = sum(len(group.numbers) for group in groups.values())
        numbers = np.arange(begun, begun + count)
        numbers = numbers if earlier is None else np.concatenate([earlier.numbers, numbers])
        return Group(build, fixed, names, epochs, schedule, state.ledger, numbers), job

    groups: dict[int, Group] = {}
    ended_rows: dict[int, Record] = {}
    order, ended, spent = list(range(len(structures))), False, Seconds(0.0, 0.0, 0.0, 0.0)
    with trials_bar(trials, show=progress and jax.process_index() == 0) as show_trials:
        for i, counts in enumerate(group_rounds(len(structures), trials, GROUP_KEEP.get(method, keep))):
            for index, count in zip(order, counts, strict=False):
                if ended:
                    break
                earlier = groups.get(index)
                group, job = begin(index, count, earlier)

                def show(ledger: Ledger, index: int = index, group: Group = group) -> bool:
                    begun = [*(groups | {index: group._replace(ledger=ledger)}).values()]
                    show_trials(*_progress(begun))
                    table = table_of(begun, ended_rows) if callbacks else []
                    answers = [callback(table) for callback in callbacks]  # call all, even if one returns True
                    return any(answers)

                part = folder / f"structure-{index:03d}-{i}" if folder is not None and group.fixed else folder
                options = SearchOptions(part, resume, save_every, networks)
                position, seconds, ended = run_search(
                    job, group.schedule, names, options, show, earlier and earlier.position
                )
                groups[index] = group._replace(ledger=position.search.ledger, position=position)
                spent = Seconds(*(a + b for a, b in zip(spent, seconds, strict=True)))
            order = sorted(groups, key=lambda index: best_place(groups[index]))
    searched = list(groups.values())
    if not any(places(group) for group in searched):
        warnings.warn(
            "search: all trials diverged; search smaller learning rates, or clip the gradient",
            RuntimeWarning,
            stacklevel=3,
        )
    best_networks = networks_of_groups(searched, networks)
    return Search(
        best=next(iter(best_networks), None),
        table=table_of(searched),
        networks=best_networks,
        rank_correlations=rank_correlations(searched),
        advantage=advantage_of(searched),
        seconds=spent,
        validation=job.held_out,
        held_out_rows=folds.held_out if folds is not None and validation is None else None,
    )


def _progress(groups: Sequence[Group]) -> tuple[int, float]:
    """Return the number of trials that have ended, and the lowest score."""
    ended = sum(int((group.ledger.status > RUNNING).sum()) for group in groups)
    return ended, min(float(best_scores(group.ledger).min()) for group in groups)


def _check_arguments(
    make_run: Any, space: Any, rungs: Any, method: Any, callbacks: Any, *, keep: Any, patience: Any
) -> tuple[dict[str, Dimension], tuple[float, ...]]:
    """Check the arguments, and return the space and the epochs of the rungs."""
    refuse_forked_process("search")
    checks.function_of("search", "make_run", make_run, "hyper")
    dimensions = check_space("search", space)
    checks.one_of("search", "method", method, METHODS)
    if keep is not None:
        checks.in_range("search", "keep", keep, "(0, 1]")
    epochs = check_rungs(rungs)
    if patience is not None and checks.positive_int("search", "patience", patience) > len(epochs) - 2:
        most = f"at most {len(epochs) - 2}" if len(epochs) > 2 else "omitted"
        raise ValueError(f"search: patience={patience} stops no trial: with {len(epochs)} rungs, it must be {most}")
    reserved = [name for name in dimensions if name in COLUMNS or name.startswith(("validation_", SCORE))]
    if reserved:
        raise ValueError(f"search: {reserved[0]!r} is a column of the table; rename the setting")
    for callback in checks.items("search", "callbacks", callbacks, "[f]"):
        checks.function_of("search", "callbacks", callback, "table")
    return dimensions, epochs


def _check_scored(validation: Any, folds: Any, seeds: int) -> None:
    """Check that there is validation data or folds, and that seeds and folds are not combined."""
    if validation is None and folds is None:
        raise ValueError("search: trials are compared by their validation scores; pass validation= or folds=")
    if folds is not None:
        checks.instance("search", "folds", folds, Folds, "train.Folds(train, held_out), as train.k_fold returns")
    if folds is not None and seeds > 1:
        raise ValueError(f"search: each fold already has its own key, so seeds must be 1, got {seeds}")


def _folder(out: Any, resume: Any, save_every: Any) -> Path | None:
    """Check the arguments for checkpoints, and return the folder."""
    if not isinstance(resume, bool) and resume != "anyway":
        raise ValueError(f"search: resume must be True, False or 'anyway', got {resume!r:.80}")
    return FitOptions(epochs=1, out=out, resume=resume, save_every=save_every).folder  # this also checks the arguments


def _check_layout(folder: Path, *, structured: bool, resume: bool) -> None:
    """Raise an error if the folder's search has structures and this one has none, or vice versa."""
    others = [folder] if structured else sorted(folder.glob("structure-*"))
    occupied = next((other for other in others if checkpoint.files(other)), None)
    if occupied is not None:
        kind = "without" if structured else "with"
        message = f"search: {occupied} contains checkpoints of a search {kind} train.structure; choose another out="
        raise (ValueError if resume else FileExistsError)(message)


def check_rungs(rungs: Any) -> tuple[float, ...]:
    """Return the epochs of the rungs as numbers; raise ValueError unless they are positive and ascending."""
    epochs = tuple(
        float(checks.in_range("search", "rungs", e, "(0, inf)"))
        for e in checks.items("search", "rungs", rungs, "(1, 3, 9, 27)")
    )
    if not epochs or any(a >= b for a, b in itertools.pairwise(epochs)):
        raise ValueError(f"search: rungs must be ascending numbers of epochs such as (1, 3, 9, 27), got {rungs!r}")
    return epochs


def repeat_rows(rows: Rows, times: int) -> Rows:
    """Repeat the rows of all folds once for each slot; `times` is the number of slots."""
    return Rows(np.tile(np.asarray(rows.table), (times, 1)), np.tile(np.asarray(rows.sizes), times))


def rung_steps(job: Job, epochs: Sequence[float], replicates: int) -> np.ndarray:
    """Return the steps (replicates, rungs) at which the replicates of a trial reach the rungs.

    Raises:
      ValueError: if two rungs are less than a step apart.
    """
    rows, batch_size = job.members.rows, job.ensemble.run(index_tree(job.members.hyper, 0)).batch_size
    counts = [n_rows(job.data)] * replicates if rows is None else np.asarray(rows.sizes)[:replicates].tolist()
    steps = np.array([[epoch_ends(e, int(n), batch_size or int(n))[-1] for e in epochs] for n in counts])
    if (np.diff(steps, prepend=0) < 1).any():
        raise ValueError(
            f"search: rungs must be at least a step apart, but {', '.join(f'{e:g}' for e in epochs)} epochs are "
            f"{', '.join(map(str, steps.min(0)))} steps"
        )
    return steps


def _check_runs(
    job: Job, score: Any, make_run: Callable[[Any], Any], structures: Sequence[tuple[tuple[str, Any], ...]]
) -> None:
    """Check that the runs read all settings and evaluate a scalar named `score`, and that lower values are better."""
    hyper, key = index_tree((job.members.hyper, job.members.keys), 0)

    def evaluate() -> PyTree:
        run = job.ensemble.run(hyper)
        return run.evaluate(run.init(key, sample(job.data)), job.held_out)

    logged = [name for name, a in jax.eval_shape(evaluate).items() if a.shape == ()]
    if not isinstance(score, str) or score.removeprefix("-") not in logged:
        raise ValueError(
            f"search: score must be the name of an evaluated scalar ({', '.join(logged)}), with a minus if higher is "
            f"better, got {score!r}"
        )
    if score in HIGHER_IS_BETTER:
        raise ValueError(f"search: lower scores are better, so {score!r} would find the worst trial; pass '-{score}'")
    if structures:
        settings = [{**(hyper or {}), **dict(fixed)} for fixed in structures]
        warn_of_unread_settings("search", "the space", make_run, settings, (key, sample(job.data), job.held_out))
