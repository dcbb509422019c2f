"""Create, read and print the result of a search: the best setting, its test scores, and notes on the search."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
from rich.markup import escape

from nnjax import train
from nnjax.cli import run_folder
from nnjax.cli.baseline import baseline
from nnjax.cli.config import REGRESSION_METRICS
from nnjax.cli.console import format_score, note, say
from nnjax.cli.evaluation import score_prediction, with_target_scores
from nnjax.cli.history import in_words
from nnjax.cli.leaders import in_epochs
from nnjax.cli.prepare import Prepared
from nnjax.cli.report import describe_caution
from nnjax.cli.run_folder import Scores
from nnjax.cli.search_program import SearchSetup
from nnjax.cli.sweep import shortest_number, train_command_of
from nnjax.plot._trials import missing_for_importance
from nnjax.storage.json_file import check_kind, read_json
from nnjax.train.engine.search.selection import Selection
from nnjax.train.space import Dimension, unit_of

MEMBERS = 5  # number of networks in the ensemble whose test scores are printed
EDGE = 0.05  # values in this fraction of a range at each end are near the end


class Advantage(TypedDict):
    """The score of the second-best trial minus the score of the best, with a 95 % interval over seeds or folds."""

    difference: float
    low: float
    high: float
    n: int


class SearchResult(TypedDict):
    """The content of RESULT in the folder of a search."""

    data: str  # task and numbers of rows
    best: int | None  # number of the best trial; here and below, None if all trials diverged
    epochs: float | None  # number of epochs for which the network of the best trial was trained
    test: Scores | None
    ensemble: list[int]  # trials whose networks are averaged, in the order of their selection
    ensemble_test: Scores | None
    baseline: Scores
    baseline_prediction: str
    rank_correlations: list[float | None]
    advantage: Advantage | None  # also None if there is one network per trial
    notes: list[str]
    command: str | None  # command that trains the best setting
    seconds: dict[str, float]


def make_result(setup: SearchSetup, outcome: train.Search) -> SearchResult:
    """Create the content of RESULT. This is the first use of the test rows."""
    settings, _, prepared = setup
    dataset, best = prepared.dataset, outcome.best
    constant = baseline(dataset.table, prepared.training, dataset.test)
    folds = f" (in {settings['folds']} folds)" if settings["folds"] else ""
    validation = "" if prepared.held_out is None else f", {len(prepared.held_out.x):,} validation"
    counts = f"{len(prepared.training.x):,} training{folds}{validation}, {len(dataset.test.x):,} test"
    features = np.shape(prepared.training.x)[1]
    result: SearchResult = {
        "data": f"{dataset.table.task.capitalize()} ({dataset.why}): rows {counts}; {features} features.",
        "best": None,
        "epochs": None,
        "test": None,
        "ensemble": [],
        "ensemble_test": None,
        "baseline": dict(constant.scores),
        "baseline_prediction": constant.prediction,
        "rank_correlations": list(outcome.rank_correlations),
        "advantage": None,
        "notes": [],
        "command": None,
        "seconds": outcome.seconds._asdict(),
    }
    if best is None:
        return result
    if outcome.advantage is not None:
        d = outcome.advantage
        result["advantage"] = {"difference": d.difference, "low": d.low, "high": d.high, "n": d.n}
    ensemble = outcome.ensemble(MEMBERS)
    best_network = outcome._replace(networks=outcome.networks[:1]).ensemble(1)
    scores = _scores(prepared, best.run, best_network)
    result |= {
        "best": best.trial,
        "epochs": best.epochs,
        "test": dict(scores),
        "ensemble": [member.trial for member in ensemble.members],
        "ensemble_test": dict(_scores(prepared, best.run, ensemble)),
        "notes": list(_notes(setup, best, outcome.table, scores)),
        "command": _command(setup, best),
    }
    return result


def load_result(path: Path) -> SearchResult:
    """Return the content of RESULT.

    Raises:
      FileNotFoundError: if the search is not finished.
      ValueError: if the file is damaged.
    """
    try:
        result: SearchResult = check_kind("content", read_json(path / run_folder.RESULT), SearchResult)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} holds an unfinished search: {run_folder.RESULT} is missing") from error
    except ValueError as error:
        raise ValueError(f"{path / run_folder.RESULT} is damaged: {error}") from error
    return result


class Fidelity(NamedTuple):
    """Spearman's rank correlation between the scores at a rung and the final scores."""

    epochs: float  # the rung
    correlation: float | None  # None if it is undefined, as for fewer than 3 trials
    trials: int  # number of trials that have both scores


def early_fidelity(
    result: SearchResult, table: Sequence[Mapping[str, Any]], rungs: Sequence[float]
) -> Iterator[Fidelity]:
    """Yield the rank correlation for each rung except the last."""
    for rung, value in zip(rungs, result["rank_correlations"], strict=False):
        both = sum(
            math.isfinite(row[f"score_{rung:g}"]) and math.isfinite(row[f"score_{rungs[-1]:g}"]) for row in table
        )
        yield Fidelity(rung, None if value is None or not math.isfinite(value) else value, both)


def print_result(
    result: SearchResult, table: Sequence[Mapping[str, Any]], rungs: Sequence[float], *, resumed: bool
) -> None:
    """Print the reliability of early scores, the test scores, the times, and the command that trains the best setting.

    Args:
      result: the content of RESULT.
      table: one row per trial.
      rungs: the epochs after which trials are compared.
      resumed: True if the times are only those since the search was resumed.
    """
    if result["best"] is None:
        say("[bold yellow]all trials diverged[/]; search smaller learning rates, or add --clip 1")
        return
    fidelity = list(early_fidelity(result, table, rungs))
    known = [
        f"{correlation:.2f} after {in_epochs(epochs)} ({trials} trials)"
        for epochs, correlation, trials in fidelity
        if correlation is not None
    ]
    if known:
        say(f"rank correlation of early scores with those after {in_epochs(rungs[-1])}: {', '.join(known)}")
    elif fidelity:
        say("fewer than 3 trials have all scores, so it is unknown whether early scores predict final scores")
    if (d := result["advantage"]) is not None and d["low"] > 0:  # otherwise, `train.search` has warned
        interval = f"[{d['low']:.3g}, {d['high']:.3g}] (95 %, n = {d['n']})"
        say(f"the best trial is better than the second by {d['difference']:.3g} {escape(interval)}")
    for text in result["notes"]:
        note(text)
    _print_scores("test scores of the best setting", result["test"])
    if set(result["ensemble"]) == {result["best"]}:
        say(f"the ensemble is trial {result['best']} alone, because no other trial lowers its validation loss")
    else:
        _print_scores(f"test scores of the {describe_members(result['ensemble'])}", result["ensemble_test"])
    _print_scores(result["baseline_prediction"], result["baseline"])
    _print_seconds(result["seconds"], len(table), resumed=resumed)
    say(f"train the best setting again with: [bold]{escape(result['command'] or '')}[/]")


def _print_scores(label: str, scores: Scores | None) -> None:
    numbers = {in_words(name): value for name, value in (scores or {}).items() if value is not None}
    say(escape(f"{label}: " + ", ".join(f"{name} {format_score(value)}" for name, value in numbers.items())))


def _scores(prepared: Prepared, run: Any, selection: Selection) -> dict[str, float]:
    """Return the test scores of the average of the selected networks."""
    test, table = prepared.dataset.test, prepared.dataset.table
    if table.task == "regression":
        run = replace(run, metrics=REGRESSION_METRICS)  # R² is removed if it is undefined in validation
    prediction = selection.predict(test.x)
    return with_target_scores(score_prediction(run, prediction, test), table, prediction, test)


def describe_members(trials: Sequence[int]) -> str:
    """Return the number of members of an ensemble, and how often it contains each trial.

    >>> from nnjax.cli.search_result import describe_members
    >>> describe_members([7, 2, 7, 7, 2])
    'ensemble of 5 (3 × trial 7, 2 × trial 2)'
    """
    counts = [f"{count} × trial {trial}" for trial, count in Counter(trials).items()]
    return f"ensemble of {len(trials)} ({', '.join(counts)})"


def _print_seconds(seconds: Mapping[str, float], trials: int, *, resumed: bool) -> None:
    """Print the times and, unless the search was resumed, how many trials take as long as the compilation."""
    working = seconds["train"] + seconds["validate"]
    times = f"training {seconds['train']:.1f} s, validation {seconds['validate']:.1f} s"
    if resumed or working <= 0:
        say(f"compilation {seconds['compile']:.1f} s, {times}, since the search was resumed")
        return
    equal = max(1, round(trials * seconds["compile"] / working))
    say(
        f"{times}, compilation {seconds['compile']:.1f} s (the time of about {equal:,} "
        f"{'trial' if equal == 1 else 'trials'}; the compiled programs are kept for the next search of these settings)"
    )


def edges(settings: Mapping[str, Any], space: Mapping[str, Dimension]) -> Iterator[str]:
    """Yield a warning for each setting whose best value is near an end of its range."""
    for name, dimension in space.items():
        if dimension.kind not in ("log", "uniform"):
            continue
        (low, high), place = dimension.values, unit_of(dimension, settings[name])
        if place > 1 - EDGE or (place < EDGE and low > 0):  # a range cannot be extended below 0
            end = "upper" if place > 0.5 else "lower"
            yield (
                f"the best {name.replace('_', ' ')}, {settings[name]:.4g}, is near the {end} end of its range "
                f"{low:g}..{high:g}; extend it"
            )


def _notes(
    setup: SearchSetup, best: train.TrialNetwork, table: Sequence[Mapping[str, Any]], scores: Mapping[str, float]
) -> Iterator[str]:
    """Yield notes on the best trial and on the number of trials.

    Args:
      setup: the search.
      best: the network of the best trial.
      table: one row per trial, the best first.
      scores: the test scores of the best trial.
    """
    row, names = table[0], list(setup.request.space)
    if row.get("validation_r2", 1.0) <= 0:
        yield (
            f"the best trial has a validation R² of {row['validation_r2']:.4f}, so the mean of the target would be a "
            "better prediction; search more trials or longer --rungs, or other columns as features"
        )
    yield from edges(best.settings, setup.request.space)
    dataset = setup.prepared.dataset
    if caution := describe_caution(scores, len(dataset.test.x), named=dataset.rows is None, columns=False):
        yield caution
    if more := missing_for_importance(table, names):
        yield (
            f"{len(table)} trials are too few to estimate how important the searched settings are; search at least "
            f"{len(table) + more}"
        )
    yield from _differences(setup, best, row)


def _differences(setup: SearchSetup, best: train.TrialNetwork, row: Mapping[str, Any]) -> Iterator[str]:
    """Yield a note for each reason why the command does not repeat the scores of the best trial."""
    folds = setup.settings["folds"]
    own = "nnjax predict FOLDER uses the trial's own {}, and nnjax replay FOLDER trains {} again"
    if row.get("parent", -1) >= 0:
        yield (
            f"trial {row['trial']} began as a copy of trial {row['parent']}, so its settings changed during training; "
            "nnjax train starts from the beginning with its last settings, so expect different scores; "
            f"{own.format('network', 'it')}"
        )
    if folds is not None:
        yield (
            f"each trial trained {folds} networks, each on all folds but one; nnjax train with the best setting trains "
            f"one network on all rows but the test rows, so expect different scores; {own.format('networks', 'them')}"
        )


def _command(setup: SearchSetup, best: train.TrialNetwork) -> str:
    """Return the command that trains the best setting, if possible to the same network; see `_differences`.

    A network of an earlier rung is repeated by fewer epochs, with the schedule of all epochs. With folds, no rows
    validate.
    """
    config, seeds = setup.request.config, setup.settings["seeds"]
    settings: dict[str, Any] = {name: shortest_number(value) for name, value in best.settings.items()}
    if best.epochs < (config.epochs or 0):
        settings["epochs"] = best.epochs
        settings["schedule_epochs"] = None if config.schedule == "constant" else config.epochs
    if setup.settings["folds"] is not None:
        settings["validation"] = 0.0
    members = seeds if seeds > 1 else None
    return train_command_of(replace(config, **settings, members=members, strategy=None))
