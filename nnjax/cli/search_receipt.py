"""Write and read the receipt of a search, with checksums of its files, its data and its best networks."""

import os
from pathlib import Path
from typing import Any, TypedDict

from jax.sharding import Mesh

from nnjax.cli import run_folder
from nnjax.cli.console import quote
from nnjax.cli.receipt import data_digest, network_digest
from nnjax.cli.search_program import SearchSetup
from nnjax.storage.json_file import file_digest, read_json
from nnjax.train import Search
from nnjax.train.engine.fingerprint import machine_fingerprint

FILES = (
    run_folder.TABLE,
    run_folder.TRIALS,
    run_folder.RESULT,
    run_folder.WEIGHTS,  # missing if all trials diverged
    run_folder.REPORT,
)  # files whose checksums are in the receipt, which also contains a checksum of the settings in SEARCH


class SearchReceipt(TypedDict):
    """The content of RECEIPT in the folder of a search."""

    settings: str  # SHA-256 of the settings and versions
    data: str  # SHA-256 of the training, validation and test data
    best: int | None  # number of the best trial; None if all diverged
    weights: str | None  # SHA-256 of the parameters and state of the best trial
    bits_depend_on: dict[str, str]
    resumed_anyway: bool
    files: dict[str, str]  # SHA-256 of each file in FILES
    sha256: str  # SHA-256 of all other entries


def bits_depend_on(strategy: Any, mesh: Mesh | None) -> dict[str, str]:
    """Return the properties of the machine, the strategy and the devices that affect the exact result of a trial."""
    devices = "none" if mesh is None else f"members {mesh.size}"
    return machine_fingerprint() | {"strategy": str(strategy), "mesh": devices}


def write_receipt(path: Path, setup: SearchSetup, outcome: Search, mesh: Mesh | None) -> None:
    """Write the receipt, the last file of a search, which marks the search as finished."""
    best = outcome.best
    content = {
        "settings": run_folder.settings_digest(read_json(path / run_folder.SEARCH)),
        "data": data_digest(setup.prepared),
        "best": None if best is None else best.trial,
        "weights": None if best is None else network_digest(best.params, best.state),
        "bits_depend_on": bits_depend_on(setup.request.config.strategy, mesh),
        "resumed_anyway": run_folder.resumed_anyway(path),
        "files": {name: file_digest(path / name) for name in _files(best is None)},
    }
    run_folder.write_signed(path, content)


def load_receipt(path: Path) -> SearchReceipt:
    """Return the receipt of a search.

    Raises:
      ValueError: if the search is not finished, or the file is damaged.
    """
    if not os.path.lexists(path / run_folder.RECEIPT):
        resume = f"nnjax search --resume {quote(path)}"
        raise ValueError(f"{path} is not finished, {run_folder.RECEIPT} is missing; continue with: {resume}")
    receipt: SearchReceipt = run_folder.read_signed(path, SearchReceipt, lambda r: _files(r["best"] is None))
    return receipt


def changed_files(path: Path, receipt: SearchReceipt) -> list[str]:
    """Describe each file that is missing or does not match its checksum."""
    expected = {run_folder.SEARCH: receipt["settings"], **receipt["files"]}
    return [
        problem
        for name, checksum in expected.items()
        for problem in run_folder.file_changes(path, name, {checksum}, "search")
    ]


def check_files(path: Path, receipt: SearchReceipt) -> None:
    """Check that no file but the report, which `nnjax plot` draws again, has changed since the search.

    Raises:
      ValueError: if a file has changed.
    """
    problems = [problem for problem in changed_files(path, receipt) if not problem.startswith(run_folder.REPORT)]
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}; restore the file, or search again")


def _files(all_diverged: bool) -> list[str]:
    """Return the names in FILES that a search writes."""
    return [name for name in FILES if name != run_folder.WEIGHTS or not all_diverged]
