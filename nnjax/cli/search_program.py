"""Convert the settings of a search to arguments of `train.search`, and repeat the decisions of a search."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from nnjax import train
from nnjax.cli.config import Config, fit_batch, with_defaults
from nnjax.cli.console import note
from nnjax.cli.prepare import Prepared, prepare, with_defined_scores
from nnjax.cli.search_request import Request, default_rungs, parse_request, wide_linear_ranges
from nnjax.cli.sweep import make_swept_run
from nnjax.data.table import list_names
from nnjax.train.engine.ensemble import Strategy
from nnjax.train.engine.search.decisions import Decisions, Scored, decide
from nnjax.train.engine.search.draws import key_words
from nnjax.train.engine.search.groups import GROUP_KEEP, group_rounds, split_space
from nnjax.train.engine.search.methods import KEEP
from nnjax.train.run import Run
from nnjax.types import Data

FOLDS = 2  # separates the random key of the folds from the keys of the settings and the networks


class SearchSetup(NamedTuple):
    """A search that can begin."""

    settings: dict[str, Any]  # the content of SEARCH
    request: Request  # the same settings, parsed
    prepared: Prepared  # the data, without validation rows if there are folds


def search_arguments(setup: SearchSetup, mesh: Mesh | None) -> dict[str, Any]:
    """Return the arguments that `train.search` and `train.replay_trial` share.

    Args:
      setup: the search.
      mesh: the devices among which the trials are split.
    """
    settings, request, prepared = setup
    config, folds = request.config, make_folds(setup)
    return {
        "make_run": partial(make_trial_run, config, prepared, folds),
        "space": request.space,
        "data": prepared.training,
        "validation": prepared.held_out,
        "trials": settings["trials"],
        "population": settings["population"],
        "rungs": request.rungs,
        "keep": settings["keep_share"],
        "method": settings["method"],
        "patience": settings["patience"],
        "score": "nll" if "label_smoothing" in request.space else "loss",
        "key": jax.random.key(config.seed),
        "seeds": settings["seeds"],
        "folds": folds,
        "strategy": config.strategy,
        "mesh": mesh,
    }


def prepare_search(settings: Mapping[str, Any], strategy: Strategy) -> SearchSetup:
    """Load the data, and choose the default batch size and rungs, which depend on the number of rows.

    Args:
      settings: the content of SEARCH; the rungs may be None.
      strategy: the strategy to use.

    Raises:
      FileNotFoundError, ValueError: if a setting is invalid, the data cannot be read, or a split would leave a part
        empty.
    """
    request, folds = parse_request(settings), settings["folds"]
    for text in wide_linear_ranges(request):
        note(text)
    config = replace(request.config, strategy=strategy)
    prepared = prepare(config if folds is None else replace(config, validation=0.0))
    n = len(prepared.training.x)
    if folds is not None and folds > n:
        raise ValueError(f"--folds {folds}: must be in 2 … {n}, the number of rows without the test rows")
    if folds is not None and (text := describe_single_rows(prepared)):
        note(text)
    rows = n if folds is None else n - math.ceil(n / folds)
    searched = "batch_size" in request.space
    config = config if searched else fit_batch(config, rows)
    default = with_defaults(replace(config, epochs=None), prepared.dataset.table.task, rows).epochs
    complete = {**settings, "strategy": strategy, "rungs": settings["rungs"] or default_rungs(default or 0)}
    complete |= {} if searched else {"batch_size": str(config.batch_size)}
    return SearchSetup(complete, parse_request(complete), prepared)


def describe_single_rows(prepared: Prepared) -> str:
    """Return a note on classes that have a single row outside the test rows, or an empty string."""
    table = prepared.dataset.table
    if table.task != "classification":
        return ""
    counts = np.bincount(np.asarray(prepared.training.y), minlength=len(table.classes))
    single = [repr(name) for name, count in zip(table.classes, counts, strict=True) if count == 1]
    if not single:
        return ""
    return (
        f"classes with a single row outside of the test rows: {list_names(single)}; the fold that holds it out does "
        "not train on the class"
    )


def make_folds(setup: SearchSetup) -> train.Folds | None:
    """Return the folds, which are stratified by class, or None if there are validation rows instead."""
    settings, request, prepared = setup
    if settings["folds"] is None:
        return None
    labels = prepared.training.y if prepared.dataset.table.task == "classification" else None
    key = jax.random.fold_in(jax.random.key(request.config.seed), FOLDS)
    return train.k_fold(key, len(prepared.training.x), settings["folds"], stratify=labels)


def make_trial_run(config: Config, prepared: Prepared, folds: train.Folds | None, hyper: dict[str, Any]) -> Run:
    """Create the run of a trial; its numbers in `hyper` may be traced.

    With folds, the learning-rate schedule has the length of the largest fold, and R² is not computed if the target is
    constant in the held-out rows of a fold.
    """
    if folds is None:
        return make_swept_run(config, prepared, hyper)
    run = make_swept_run(config, prepared, hyper, rows=int(np.max(folds.train.sizes)))
    y, rows = np.asarray(prepared.training.y), folds.held_out
    for own, size in zip(np.asarray(rows.table), np.asarray(rows.sizes), strict=True):
        run = with_defined_scores(run, Data((), y[own[:size]]), prepared.dataset.table.task)
    return run


def check_program(setup: SearchSetup) -> None:
    """Check the rungs and the number of trials before a folder is created.

    Raises:
      ValueError: if two rungs are less than one step apart, or if the lists have more combinations than the trials
        allow.
    """
    settings, folds = setup.settings, make_folds(setup)
    _, structures = split_space(setup.request.space)
    for fixed in structures:
        steps = _rung_steps(setup, folds, fixed).min(0).tolist()
        if any(a >= b for a, b in itertools.pairwise((0, *steps))):
            raise ValueError(
                f"--rungs {settings['rungs']}: rungs must be at least a step apart, but end after "
                f"{', '.join(map(str, steps))} steps; an epoch has {_rows(setup.prepared, folds).min():,} rows"
            )
    keep = GROUP_KEEP.get(settings["method"], _keep(settings))
    least = next(n for n in itertools.count(1) if _enough(len(structures), n, keep))
    if settings["trials"] < least:
        raise ValueError(
            f"--trials {settings['trials']} are too few for the {len(structures)} combinations of the lists; "
            f"pass at least {least}"
        )


def make_decisions(setup: SearchSetup, scored: Scored) -> Decisions:
    """Return the decisions of a search with the given scores."""
    settings, request, _ = setup
    return decide(
        request.space,
        partial(_rung_steps, setup, make_folds(setup)),
        scored,
        trials=settings["trials"],
        population=settings["population"],
        epochs=request.rungs,
        keep=_keep(settings),
        method=settings["method"],
        key=key_words(jax.random.key(request.config.seed)),
        patience=settings["patience"],
    )


def _rung_steps(setup: SearchSetup, folds: train.Folds | None, fixed: tuple[tuple[str, Any], ...]) -> np.ndarray:
    """Return the steps (folds, rungs) after which a trial reaches each rung, in a single row without folds."""
    request = setup.request
    batch_size = dict(fixed).get("batch_size", request.config.batch_size)
    rows = _rows(setup.prepared, folds).tolist()
    return np.array([[train.epoch_ends(epochs, n, batch_size)[-1] for epochs in request.rungs] for n in rows])


def _rows(prepared: Prepared, folds: train.Folds | None) -> np.ndarray:
    """Return the number of training rows (folds,) of each fold, or (1,) without folds."""
    return np.array([len(prepared.training.x)]) if folds is None else np.asarray(folds.train.sizes)


def _keep(settings: Mapping[str, Any]) -> float:
    share = settings["keep_share"]
    return KEEP.get(settings["method"], 1 / 3) if share is None else float(share)


def _enough(structures: int, trials: int, keep: float) -> bool:
    """Return True if there are enough trials for all combinations of the lists (structures) in all rounds."""
    try:
        group_rounds(structures, trials, keep)
    except ValueError:
        return False
    return True
