"""`nnjax verify` and `nnjax replay` for a search: check the files and decisions, and train trials again."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from nnjax import train
from nnjax.cli import run_folder, search_receipt
from nnjax.cli.config import Config
from nnjax.cli.devices import start_devices
from nnjax.cli.prepare import Prepared
from nnjax.cli.receipt import TEST_TOLERANCE, data_digest
from nnjax.cli.search_folder import load_search
from nnjax.cli.search_program import make_decisions, prepare_search, search_arguments
from nnjax.cli.search_report import SearchSubject
from nnjax.cli.search_request import members_of
from nnjax.train.engine.errors import format_differences
from nnjax.train.engine.fingerprint import differences
from nnjax.train.engine.options import Record
from nnjax.train.engine.search.decisions import Scored
from nnjax.train.engine.search.results import SCORE, table_of


class OpenSearch(NamedTuple):
    """A finished search with its data."""

    path: Path
    subject: SearchSubject
    receipt: search_receipt.SearchReceipt
    config: Config
    prepared: Prepared
    mesh: Mesh | None
    changes: list[tuple[str, str, str]]  # differences between the machines that affect exact results


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
    run_folder.load_search(path)  # raises a clearer error if this is not the folder of a search
    receipt, subject = search_receipt.load_receipt(path), load_search(path)
    own = subject.settings
    mesh = start_devices(members_of(own), None)
    _, _, config, prepared = prepare_search(own, own["strategy"])
    changes = differences(receipt["bits_depend_on"], search_receipt.bits_depend_on(own["strategy"], mesh))
    return OpenSearch(path, subject, receipt, config, prepared, mesh, changes)


def verify_search(path: Path) -> Verdict:
    """Check the files and the data, repeat all decisions, and train the best trial again."""
    receipt = search_receipt.load_receipt(path)
    problems = search_receipt.changed_files(path, receipt)
    if problems:
        return Verdict(problems, "")
    search = open_search(path)
    if data_digest(search.prepared) != receipt["data"]:
        changed = "the data or their split have changed since the search: their SHA-256 does not match the receipt"
        return Verdict([changed], "")
    decided = decision_problems(search)
    kind = "bit for bit" if exact(search) else "within tolerance"
    decisions = f"{kind}: the decisions on all {len(search.subject.table):,} trials follow from their scores"
    best = receipt["best"]
    if best is None:
        return Verdict(decided, f"{decisions}; all trials diverged", describe_changes(search))
    replayed = replay_search(search, best)
    problems, agreement = trial_problems(search, replayed, best)
    network = replayed.network
    if network is not None and exact(search) and not problems:
        agreement += " and the same network"
        if search_receipt.network_digest(network.params, network.state) != receipt["weights"]:
            problems = [f"the network of trial {best} differs from the receipt"]
    agreement = f"{decisions}, and trial {best}, the best, has {agreement} when it is trained again"
    return Verdict([*decided, *problems], agreement, describe_changes(search))


def replay_search(search: OpenSearch, trial: int) -> train.TrialReplay:
    """Train a trial again."""
    arguments = search_arguments(
        search.config, search.subject.request, search.prepared, search.subject.settings, search.mesh
    )
    return train.replay_trial(**arguments, table=[dict(row) for row in search.subject.table], trial=trial)


def exact(search: OpenSearch) -> bool:
    """Return True if this machine should reproduce the search bit for bit."""
    return not search.changes and not search.receipt["resumed_anyway"]


def trial_problems(search: OpenSearch, replayed: train.TrialReplay, trial: int) -> tuple[list[str], str]:
    """Describe each score that differs after the trial was trained again, and the agreement of the other scores."""
    row = row_of(search, trial)
    names = [f"{SCORE}{epochs:g}" for epochs in search.subject.request.rungs]
    recorded = {name: row[name] for name in names if math.isfinite(row[name])}
    now = {f"{SCORE}{epochs:g}": value for epochs, value in replayed.scores.items()}
    problems = []
    for name in names:
        a, b = recorded.get(name, math.nan), now.get(name, math.nan)
        close = np.isclose(b, a, rtol=0 if exact(search) else TEST_TOLERANCE, atol=0, equal_nan=True)
        if not close:
            problems.append(f"{name} of trial {trial}: {a:.6g} in {run_folder.TRIALS}, {b:.6g} now")
    return problems, "the same scores" if exact(search) else f"the same scores to {TEST_TOLERANCE:g} (relative)"


def describe_changes(search: OpenSearch) -> str:
    """Explain why bitwise equal scores cannot be expected; return "" if they can."""
    if exact(search):
        return ""
    if search.receipt["resumed_anyway"]:
        return "bitwise equal scores cannot be expected, because the search was resumed with --anyway"
    return (
        "bitwise equal scores cannot be expected, because this machine or its libraries differ:\n"
        f"{format_differences(search.changes)}"
    )


def row_of(search: OpenSearch, trial: int) -> Record:
    """Return the record of a trial in the table of the search.

    Raises:
      ValueError: if the search does not have this trial.
    """
    rows = {row["trial"]: row for row in search.subject.table}
    if trial not in rows:
        raise ValueError(f"--trial {trial}: the search has the trials 0 to {max(rows)}")
    return dict(rows[trial])


def decision_problems(search: OpenSearch) -> list[str]:
    """Describe the first setting, status, number of epochs or parent that contradicts the scores, if there is one."""
    request, rows = search.subject.request, {row["trial"]: row for row in search.subject.table}
    columns = [f"{SCORE}{epochs:g}" for epochs in request.rungs]

    def score(trial: int, rung: int) -> float:
        return float(rows[trial][columns[rung]]) if trial in rows else math.nan

    def diverged(trial: int) -> int:
        return int(rows[trial]["diverged"]) if trial in rows else -1

    decisions = make_decisions(
        search.config, request, search.prepared, search.subject.settings, Scored(score, diverged)
    )
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
