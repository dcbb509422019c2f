"""`nnjax verify` and `nnjax replay` for a search: check the files and decisions, and train trials again."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from nnjax import train
from nnjax.cli import run_folder, search_receipt
from nnjax.cli.devices import start_devices
from nnjax.cli.receipt import TEST_TOLERANCE, data_problem, describe_inexactness, network_digest
from nnjax.cli.search_folder import load_search
from nnjax.cli.search_program import SearchSetup, make_decisions, prepare_search, search_arguments
from nnjax.cli.search_request import members_of
from nnjax.train.engine.fingerprint import differences
from nnjax.train.engine.options import Record
from nnjax.train.engine.search.decisions import Scored
from nnjax.train.engine.search.results import SCORE, table_of


class OpenSearch(NamedTuple):
    """A finished search with its data."""

    setup: SearchSetup
    table: Sequence[Mapping[str, Any]]  # one record per trial, best first
    receipt: search_receipt.SearchReceipt
    mesh: Mesh | None
    inexactness: str  # reason why bitwise equal scores cannot be expected; "" if they can


class Verdict(NamedTuple):
    """The outcome of a check."""

    problems: list[str]
    agreement: str  # text that describes what was checked
    reason: str = ""  # reason to expect agreement only within a tolerance; empty if exact equality is expected


def open_search(path: Path) -> OpenSearch:
    """Load a finished search with its data, and print the hardware and the versions.

    Raises:
      FileNotFoundError, ValueError: if the search is not finished, or a file is damaged.
    """
    subject, receipt = load_search(path), search_receipt.load_receipt(path)
    settings = subject.settings
    mesh = start_devices(members_of(settings), None)
    setup = prepare_search(settings, settings["strategy"])
    changes = differences(receipt["bits_depend_on"], search_receipt.bits_depend_on(settings["strategy"], mesh))
    return OpenSearch(setup, subject.table, receipt, mesh, describe_inexactness(receipt, changes, "search"))


def verify_search(path: Path) -> Verdict:
    """Check the files and the data, repeat all decisions, and train the best trial again."""
    receipt = search_receipt.load_receipt(path)
    problems = search_receipt.changed_files(path, receipt)
    if problems:
        return Verdict(problems, "")
    search = open_search(path)
    if problem := data_problem(search.setup.prepared, receipt, "search"):
        return Verdict([problem], "")
    decided = decision_problems(search)
    kind = "within tolerance" if search.inexactness else "bit for bit"
    decisions = f"{kind}: the decisions on all {len(search.table):,} trials follow from their scores"
    best = receipt["best"]
    if best is None:
        return Verdict(decided, f"{decisions}; all trials diverged", search.inexactness)
    replayed = replay_search(search, best)
    problems, agreement = trial_problems(search, replayed, best)
    network = replayed.network
    if network is not None and not search.inexactness and not problems:
        agreement += " and the same network"
        if network_digest(network.params, network.state) != receipt["weights"]:
            problems = [f"the network of trial {best} differs from the receipt"]
    agreement = f"{decisions}, and trial {best}, the best, has {agreement} when it is trained again"
    return Verdict([*decided, *problems], agreement, search.inexactness)


def replay_search(search: OpenSearch, trial: int) -> train.TrialReplay:
    """Train a trial again."""
    arguments = search_arguments(search.setup, search.mesh)
    return train.replay_trial(**arguments, table=[dict(row) for row in search.table], trial=trial)


def trial_problems(search: OpenSearch, replayed: train.TrialReplay, trial: int) -> tuple[list[str], str]:
    """Describe each score that differs after the trial was trained again, and the agreement of the other scores."""
    row = row_of(search, trial)
    names = [f"{SCORE}{epochs:g}" for epochs in search.setup.request.rungs]
    recorded = {name: row[name] for name in names if math.isfinite(row[name])}
    repeated = {f"{SCORE}{epochs:g}": value for epochs, value in replayed.scores.items()}
    problems, tolerance = [], TEST_TOLERANCE if search.inexactness else 0
    for name in names:
        a, b = recorded.get(name, math.nan), repeated.get(name, math.nan)
        close = np.isclose(b, a, rtol=tolerance, atol=0, equal_nan=True)
        if not close:
            problems.append(f"{name} of trial {trial}: {a:.6g} in {run_folder.TRIALS}, {b:.6g} now")
    return problems, f"the same scores to {tolerance:g} (relative)" if tolerance else "the same scores"


def row_of(search: OpenSearch, trial: int) -> Record:
    """Return the record of a trial in the table of the search.

    Raises:
      ValueError: if the search does not have this trial.
    """
    rows = {row["trial"]: row for row in search.table}
    if trial not in rows:
        raise ValueError(f"--trial {trial}: the search has the trials 0 to {max(rows)}")
    return dict(rows[trial])


def decision_problems(search: OpenSearch) -> list[str]:
    """Describe the first setting, status, number of epochs or parent that contradicts the scores, if there is one."""
    request, rows = search.setup.request, {row["trial"]: row for row in search.table}
    columns = [f"{SCORE}{epochs:g}" for epochs in request.rungs]

    def score(trial: int, rung: int) -> float:
        return float(rows[trial][columns[rung]]) if trial in rows else math.nan

    def diverged(trial: int) -> int:
        return int(rows[trial]["diverged"]) if trial in rows else -1

    decisions = make_decisions(search.setup, Scored(score, diverged))
    again = {row["trial"]: row for row in table_of(decisions.groups)}
    if again.keys() != rows.keys():
        return [f"{run_folder.TRIALS} has {len(rows)} trials, but {len(again)} follow from its scores"]
    for trial in sorted(again):
        for name in (*request.space, "status", "epochs", "parent"):
            if name in again[trial] and again[trial][name] != rows[trial].get(name):
                return [
                    f"{name} of trial {trial} is {rows[trial].get(name)}, but {again[trial][name]} follows from the "
                    "scores of the earlier trials"
                ]
    return []


def settings_of(row: Mapping[str, Any], names: Any) -> str:
    """Summarise the settings of a trial."""
    texts = {name: f"{row[name]:.4g}" if isinstance(row[name], float) else f"{row[name]}" for name in names}
    return ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in texts.items())
