"""Write and read the receipt of a search, with checksums of its files, its data and its best networks."""

import os
from pathlib import Path
from typing import Any, TypedDict

from jax.sharding import Mesh

from nnjax.cli import run_folder
from nnjax.cli.console import quote
from nnjax.cli.prepare import Prepared
from nnjax.cli.receipt import data_digest
from nnjax.storage.atomic_write import write_json
from nnjax.storage.checkpoint import digest
from nnjax.storage.json_file import check_kind, file_digest, json_digest, read_json
from nnjax.train import Search
from nnjax.train.engine.fingerprint import machine_fingerprint
from nnjax.types import PyTree

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


def network_digest(params: PyTree, state: PyTree) -> str:
    """Return a single SHA-256 of the parameters and the state of a trial's networks."""
    return digest({"params": params, "state": state})


def write_receipt(path: Path, prepared: Prepared, outcome: Search, strategy: Any, mesh: Mesh | None) -> None:
    """Write the receipt, the last file of a search, which marks the search as finished."""
    best = outcome.best
    content = {
        "settings": run_folder.settings_digest(read_json(path / run_folder.SEARCH)),
        "data": data_digest(prepared),
        "best": None if best is None else best.trial,
        "weights": None if best is None else network_digest(best.params, best.state),
        "bits_depend_on": bits_depend_on(strategy, mesh),
        "resumed_anyway": run_folder.resumed_anyway(path),
        "files": {name: file_digest(path / name) for name in _files(best is None)},
    }
    write_json(path / run_folder.RECEIPT, {**content, "sha256": json_digest(content)})


def load_receipt(path: Path) -> SearchReceipt:
    """Return the receipt of a search.

    Raises:
      ValueError: if the search is not finished, or the file is damaged.
    """
    if not os.path.lexists(path / run_folder.RECEIPT):
        resume = f"nnjax search --resume {quote(path)}"
        raise ValueError(f"{path} is not finished, {run_folder.RECEIPT} is missing; continue with: {resume}")
    try:
        receipt: SearchReceipt = check_kind("content", read_json(path / run_folder.RECEIPT), SearchReceipt)
        if json_digest({name: value for name, value in receipt.items() if name != "sha256"}) != receipt["sha256"]:
            raise ValueError("its content does not match its SHA-256")
        files = _files(receipt["best"] is None)
        if set(receipt["files"]) != set(files):
            raise ValueError(f"expected the checksums of {', '.join(files)}, got {', '.join(receipt['files'])}")
    except (ValueError, OSError) as error:
        raise ValueError(f"{path / run_folder.RECEIPT} is damaged: {error}") from error
    return receipt


def changed_files(path: Path, receipt: SearchReceipt) -> list[str]:
    """Describe each file that is missing or does not match its checksum."""
    problems = []
    for name in (run_folder.SEARCH, *receipt["files"]):
        try:
            if name == run_folder.SEARCH:
                same = run_folder.settings_digest(read_json(path / name)) == receipt["settings"]
            else:
                same = file_digest(path / name) == receipt["files"][name]
        except OSError as error:
            problems.append(f"{name} cannot be read: {error.strerror}")
        else:
            if not same:
                problems.append(f"{name} has changed since the search: it does not match its SHA-256")
    return problems


def check_files(path: Path, receipt: SearchReceipt) -> None:
    """Check that no file but the report, which `nnjax plot` draws again, has changed since the search.

    Raises:
      ValueError: if a file has changed.
    """
    problems = [problem for problem in changed_files(path, receipt) if not problem.startswith(run_folder.REPORT)]
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}; restore the file, or search again")


def update_report_checksum(path: Path) -> None:
    """Update only the checksum of REPORT in the receipt, after the report was written again."""
    receipt = load_receipt(path)
    content: dict[str, Any] = {name: value for name, value in receipt.items() if name != "sha256"}
    content["files"] = {**receipt["files"], run_folder.REPORT: file_digest(path / run_folder.REPORT)}
    write_json(path / run_folder.RECEIPT, {**content, "sha256": json_digest(content)})


def _files(all_diverged: bool) -> list[str]:
    """Return the names in FILES that a search writes."""
    return [name for name in FILES if name != run_folder.WEIGHTS or not all_diverged]
