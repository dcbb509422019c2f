"""Create, read and print the result of a search: the best setting, its test scores, and notes on the search."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from rich.markup import escape

from nnjax import train
from nnjax.cli import run_folder
from nnjax.cli.baseline import baseline
from nnjax.cli.config import Config
from nnjax.cli.console import say
from nnjax.cli.evaluation import score_prediction
from nnjax.cli.history import in_target_units
from nnjax.cli.prepare import Prepared
from nnjax.cli.run_folder import Scores
from nnjax.cli.search_request import Request
from nnjax.cli.sweep import shortest_number, train_command_of
from nnjax.storage.json_file import check_kind, read_json
from nnjax.train.space import Dimension, unit_of

MEMBERS = 5  # number of networks in the ensemble whose test scores are printed
EDGE = 0.05  # values in this fraction of a range at each end are near the end


class Advantage(TypedDict):
    """The score of the second-best trial minus the score of the best, with a 95 % interval over the seeds."""

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
    advantage: Advantage | None  # also None if there is only one seed
    notes: list[str]
    command: str | None  # command that trains the best setting
    seconds: dict[str, float]


def make_result(
    config: Config, request: Request, prepared: Prepared, outcome: train.Search, seeds: int
) -> SearchResult:
    """Create the content of RESULT. This is the first use of the test rows.

    Args:
      config: the settings that are not searched, without the defaults of the task.
      request: the settings of the search.
      prepared: the data.
      outcome: the result of `train.search`.
      seeds: number of networks per setting.
    """
    dataset, best = prepared.dataset, outcome.best
    constant = baseline(dataset.table, prepared.training, dataset.test)
    rows = [len(part.x) for part in (prepared.training, prepared.held_out, dataset.test) if part is not None]
    counts = ", ".join(f"{n:,} {kind}" for n, kind in zip(rows, ("training", "validation", "test"), strict=True))
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
    together = outcome.ensemble(MEMBERS)
    alone = outcome._replace(networks=outcome.networks[:1]).ensemble(1)
    result |= {
        "best": best.trial,
        "epochs": best.epochs,
        "test": _scores(prepared, outcome, alone),
        "ensemble": [member.trial for member in together.members],
        "ensemble_test": _scores(prepared, outcome, together),
        "notes": [
            *edges(best.settings, request.space),
            *_other_weights(config, best.settings),
            *_other_schedule(outcome.table[0]),
        ],
        "command": _command(config, best, seeds),
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


def print_result(result: SearchResult, finished: int) -> None:
    """Print the reliability of early scores, the test scores, and the command that trains the best setting.

    Args:
      result: the content of RESULT.
      finished: number of trials that reached the last rung.
    """
    if result["best"] is None:
        say("[bold yellow]all trials diverged[/]; search smaller learning rates, or add --clip 1")
        return
    known = [value for value in result["rank_correlations"] if value is not None and math.isfinite(value)]
    correlations = [f"{value:.2f}" for value in known]
    if correlations:
        say(
            f"rank correlation of early scores with final scores, over the {finished} trials that have both: "
            f"{', '.join(correlations)}"
        )
    if (d := result["advantage"]) is not None:
        interval = f"[{d['low']:.3g}, {d['high']:.3g}]"
        say(f"the best trial is better than the second by {d['difference']:.3g} {escape(interval)} (95 %)")
    for note in result["notes"]:
        say(f"[bold yellow]note[/] {escape(note)}")
    for label, scores in (("best setting", result["test"]), (f"ensemble of {MEMBERS}", result["ensemble_test"])):
        numbers = {name.replace("_", " "): value for name, value in (scores or {}).items() if value is not None}
        say(f"test scores of the {label}: " + ", ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
    say(f"train the best setting again with: [bold]{escape(result['command'] or '')}[/]")


def _scores(prepared: Prepared, outcome: train.Search, selection: Any) -> Scores:
    """Return the test scores of the average of the selected networks."""
    test, run = prepared.dataset.test, outcome.networks[0].run
    scores = score_prediction(run, selection.predict(test.x), test)  # type: ignore[arg-type]
    return dict(in_target_units({k: float(v) for k, v in scores.items()}, prepared.dataset.table.target_std))


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


def _other_schedule(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield a warning if the best trial began as a copy of another trial, with different settings."""
    if row.get("parent", -1) >= 0:
        yield (
            f"trial {row['trial']} began as a copy of trial {row['parent']}; the command trains with its settings from "
            "the beginning, so expect different scores; nnjax replay trains the same network again"
        )


def _other_weights(config: Config, settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield a warning if the command that trains the best setting starts from different weights than the search."""
    if settings.get("width", config.width) < config.width:
        yield (
            f"in the search, layers of width {settings['width']} were padded to {config.width}; the command draws "
            "different initial weights, as a new seed does, so expect different scores; nnjax replay trains the same "
            "network again"
        )


def _command(config: Config, best: Any, seeds: int) -> str:
    settings = {name: shortest_number(value) for name, value in best.settings.items()}
    # This patience is too large to stop early, but keeps the network with the lowest validation loss
    last = config.epochs or 0
    patience = math.ceil(last) if best.epochs < last else None
    members = seeds if seeds > 1 else None
    return train_command_of(replace(config, **settings, members=members, patience=patience, strategy=None))
