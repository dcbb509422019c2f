"""Read and write the folder of a run, a sweep or a search. All files are written atomically."""

import os
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from nnjax.cli.config import SEARCH_SETTINGS, SETTINGS, SWEEP_SETTINGS, Config, check_types, make_net
from nnjax.cli.console import quote
from nnjax.data.table import Table, check_table
from nnjax.storage.atomic_write import write_json
from nnjax.storage.json_file import check_kind, file_digest, json_digest, read_json

CONFIG, TABLE, METRICS, RESULT, WEIGHTS, REPORT, RECEIPT, CHECKPOINTS = (
    "config.json",  # this file marks the folder as a run
    "table.json",
    "metrics.csv",
    "result.json",
    "weights.safetensors",
    "report.html",
    "receipt.json",  # the last file that a run writes
    "checkpoints",
)
SWEEP, ROWS = "sweep.json", "sweep.csv"  # the first and the last file that a sweep writes
SEARCH, TRIALS = "search.json", "search.csv"  # the first file that a search writes, and its table; the last is RECEIPT
KINDS = (  # what a folder can hold: its name, its command, and the first and the last file
    ("run", "train", CONFIG, RECEIPT),
    ("sweep", "sweep", SWEEP, ROWS),
    ("search", "search", SEARCH, RECEIPT),
)
RECEIPT_FILES = (
    TABLE,
    WEIGHTS,
    METRICS,
    RESULT,
    REPORT,
)  # files whose checksums are in the receipt, which also contains a checksum of the settings in CONFIG
# Settings that do not affect the result. The first two are paths; the receipt contains a checksum of the data
FREE = ("data", "data_dir", "save_every", "keep")

NOTES = ("versions", "sha256", "resumed_anyway")  # entries of CONFIG, SWEEP and SEARCH that are not settings
Scores = dict[str, float | None]  # None for NaN, which JSON cannot store


class Notes(TypedDict):
    """The entries of CONFIG, SWEEP and SEARCH that are not settings."""

    versions: dict[str, str]
    sha256: dict[str, str]  # SHA-256 of the settings and, for a run, of TABLE
    resumed_anyway: NotRequired[bool]


class ResultFile(TypedDict):
    """The content of RESULT."""

    test: Scores | None  # None if the training diverged
    steps: int
    seconds: dict[str, float]
    baseline: NotRequired[Scores]  # scores of a constant prediction
    recall: NotRequired[Scores]  # this and the next two fields exist only for classification
    balanced_accuracy: NotRequired[float]
    auc: NotRequired[float | None]
    diverged: NotRequired[int | None]  # this and the next two fields exist only for a single network
    best_step: NotRequired[int]
    stopped: NotRequired[bool]
    uncertainty: NotRequired[Scores]  # this and the next two fields exist only for an ensemble
    left_out: NotRequired[list[int]]
    members: NotRequired[list[dict[str, float | int | bool | None]]]


class ReceiptFile(TypedDict):
    """The content of RECEIPT; see `receipt.make_receipt`."""

    weights: str
    settings: str
    data: str
    first_losses: list[float | None] | list[list[float | None]]
    test: Scores | None
    bits_depend_on: dict[str, str]
    resumed_anyway: bool
    files: dict[str, str]  # SHA-256 of each file in RECEIPT_FILES
    sha256: str  # SHA-256 of all other entries


def create(path: Path, save_settings: Callable[[Path], None]) -> None:
    """Create the folder of a new run, sweep or search, and write its settings.

    Raises:
      FileExistsError: if the path is a file, or if the folder contains a run, sweep, search or table of results.
      OSError: if the folder cannot be created or written to.
    """
    if path.is_file():
        raise FileExistsError(f"{path} is a file; choose a folder with --out")
    for kind, command, first, last in KINDS:
        if (path / first).exists() and not (path / last).exists():
            raise FileExistsError(
                f"{path} holds an unfinished {kind}; continue with: nnjax {command} --resume {quote(path)}"
            )
    if any((path / name).exists() for name in (CONFIG, WEIGHTS, SWEEP, SEARCH, CHECKPOINTS)):
        kind = next((kind for kind, _, first, _ in KINDS if (path / first).exists()), "run")
        raise FileExistsError(f"{path} already holds a {kind}; choose another folder with --out")
    for name in (METRICS, ROWS, TRIALS):  # such a file may be the user's data
        if (path / name).exists():
            raise FileExistsError(f"{path} holds a file {name}, which a run would overwrite; choose another with --out")
    try:
        path.mkdir(parents=True, exist_ok=True)
        save_settings(path)
    except OSError as error:
        raise OSError(f"{path} cannot be written to: {error.strerror}; choose another folder with --out") from error


def is_finished(path: Path) -> bool:
    """Return True if the folder contains the last file of a run, sweep or search."""
    return any((path / name).is_file() for name in (RECEIPT, ROWS))


def save_config(path: Path, config: Config, table: Table, versions: dict[str, str]) -> None:
    """Write the encoding of the rows (TABLE), and then the settings (CONFIG), which mark the folder as a run."""
    save_table(path, table)
    _save_settings(path / CONFIG, asdict(config), versions, {TABLE: file_digest(path / TABLE)})


def save_table(path: Path, table: Table) -> None:
    """Write the encoding of the rows."""
    write_json(path / TABLE, table._asdict())


def load_table(path: Path) -> Table:
    """Return the encoding of the rows.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: if the file is damaged.
    """
    return _table(read_json(path / TABLE))


def save_sweep(path: Path, settings: dict[str, Any], versions: dict[str, str]) -> None:
    """Write the settings of a sweep, which mark the folder as a sweep."""
    _save_settings(path / SWEEP, settings, versions, {})


def save_search(path: Path, settings: dict[str, Any], versions: dict[str, str]) -> None:
    """Write the settings of a search, which mark the folder as a search."""
    _save_settings(path / SEARCH, settings, versions, {})


def _save_settings(file: Path, settings: dict[str, Any], versions: dict[str, str], files: dict[str, str]) -> None:
    content = {**settings, "versions": versions}
    write_json(file, {**content, "sha256": {"settings": settings_digest(content), **files}})


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the versions and of all settings in CONFIG, SWEEP or SEARCH that affect the result.

    The paths of the data and the options for saving are excluded, so they may be edited in the file.
    """
    return json_digest({name: v for name, v in settings.items() if name not in (*FREE, "sha256", "resumed_anyway")})


def load_config(path: Path) -> tuple[Config, Table]:
    """Return the settings of a run and the encoding of its rows.

    Raises:
      FileNotFoundError: if the folder contains no run.
      ValueError: if a file is damaged or has changed since the run.
    """
    config, table = read_config(path)
    _refuse(path, changes(path, (CONFIG, TABLE)))
    return config, table


def read_config(path: Path) -> tuple[Config, Table]:
    """Return the same values as `load_config`, with the same errors, but without verifying checksums."""
    for name in (CONFIG, TABLE):
        if not os.path.lexists(path / name):
            raise FileNotFoundError(f"{path} holds no run: {CONFIG} or {TABLE} is missing{_content(path)}")
    try:
        config = Config(**_settings(read_json(path / CONFIG), SETTINGS))
        make_net(config, outputs=1)  # raises ValueError for unknown names in the settings
        return config, _table(read_json(path / TABLE))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {CONFIG} or {TABLE} is damaged: {error}") from error


def load_sweep(path: Path) -> dict[str, Any]:
    """Return the settings of a sweep. Swept settings are strings, such as "1e-4..1e-1:log:8".

    Raises:
      FileNotFoundError: if the folder contains no sweep.
      ValueError: if the file is damaged or has changed since the sweep began.
    """
    return _load_settings(path, "sweep", SWEEP, SWEEP_SETTINGS)


def load_search(path: Path) -> dict[str, Any]:
    """Return the settings of a search. Searched settings are strings, such as "1e-4..1e-1:log".

    Raises:
      FileNotFoundError: if the folder contains no search.
      ValueError: if the file is damaged, has changed since the search began, or was written by a different version.
    """
    settings = {"schedule_epochs": None} | _load_settings(path, "search", SEARCH, SEARCH_SETTINGS)  # older ones lack it
    if missing := [name for name in SEARCH_SETTINGS if name not in settings]:
        raise ValueError(
            f"{path}: {SEARCH} has no {missing[0]!r}, so it was written by a different version of nnjax; use that "
            "version for this folder, or search again"
        )
    return settings


def _load_settings(path: Path, kind: str, file: str, types: dict[str, Any]) -> dict[str, Any]:
    if not os.path.lexists(path / file):
        raise FileNotFoundError(f"{path} holds no {kind}: {file} is missing{_content(path)}")
    content = read_json(path / file)
    try:
        settings = _settings(content, types)
    except ValueError as error:
        raise ValueError(f"{path}: {file} is damaged: {error}") from error
    _refuse(path, file_changes(path, file, {content["sha256"].get("settings")}, kind))
    return settings


def _content(path: Path) -> str:
    """Describe which kind of folder this is, and how to continue it, for the end of a message; "" if unknown."""
    for kind, command, first, _ in KINDS:
        if (path / first).is_file():
            resume = f"; continue with: nnjax {command} --resume {quote(path)}"
            return f"; it holds a finished {kind}" if is_finished(path) else f"; it holds an unfinished {kind}{resume}"
    return ""


def _settings(content: dict[str, Any], types: dict[str, Any]) -> dict[str, Any]:
    """Check all entries of CONFIG, SWEEP or SEARCH, and return the entries that are settings."""
    settings = {name: value for name, value in content.items() if name not in NOTES}
    check_types(settings, types)
    check_kind("content", {name: value for name, value in content.items() if name in NOTES}, Notes)
    return settings


def _table(content: dict[str, Any]) -> Table:
    """Convert the content of TABLE to a `Table`.

    Raises:
      ValueError: if values have the wrong type, or contradict each other.
    """
    table: Table = check_kind(TABLE, content, Table)
    try:
        return check_table(table)
    except ValueError as error:
        raise ValueError(f"{TABLE}: {error}") from error


def resumed_anyway(path: Path) -> bool:
    """Return True if the run, sweep or search was resumed with --anyway."""
    return bool(read_json(_first_file(path)).get("resumed_anyway", False))


def record_resumed_anyway(path: Path) -> None:
    """Record that the run, sweep or search was resumed with --anyway, so it cannot be reproduced bit for bit."""
    if not resumed_anyway(path):
        write_json(_first_file(path), read_json(_first_file(path)) | {"resumed_anyway": True})


def _first_file(path: Path) -> Path:
    return path / next((name for name in (CONFIG, SWEEP) if (path / name).is_file()), SEARCH)


def load_result(path: Path, config: Config) -> ResultFile:
    """Return the content of RESULT.

    Raises:
      FileNotFoundError: if the run is not finished.
      ValueError: if the file is damaged.
    """
    try:
        result: ResultFile = check_kind("content", read_json(path / RESULT), ResultFile)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} holds an unfinished run: {RESULT} is missing") from error
    except ValueError as error:
        raise ValueError(f"{path / RESULT} is damaged: {error}") from error
    members, left_out = config.members or 0, result.get("left_out", [])
    if (config.members is None) != ("left_out" not in result):
        raise ValueError(f"{path / RESULT} is damaged: left_out does not match members={config.members} in {CONFIG}")
    if sorted(set(left_out)) != left_out or not set(left_out) <= set(range(members)):
        raise ValueError(f"{path / RESULT} is damaged: left_out must be ascending members below {members}")
    if config.members is not None and (len(left_out) == members) != (result["test"] is None):
        raise ValueError(f"{path / RESULT} is damaged: test does not match left_out")
    return result


def save_receipt(path: Path, receipt: Mapping[str, Any]) -> None:
    """Write the receipt, the last file of a run, with checksums of the settings, of RECEIPT_FILES and of itself."""
    settings = settings_digest(read_json(path / CONFIG))
    content = {**receipt, "settings": settings, "files": {name: file_digest(path / name) for name in RECEIPT_FILES}}
    write_signed(path, content)


def load_receipt(path: Path) -> ReceiptFile | None:
    """Return the receipt of a run, or None if it does not exist.

    Raises:
      ValueError: if the file is damaged.
    """
    if not os.path.lexists(path / RECEIPT):
        return None
    receipt: ReceiptFile = read_signed(path, ReceiptFile, lambda _: RECEIPT_FILES)
    return receipt


def write_signed(path: Path, content: Mapping[str, Any]) -> None:
    """Write the receipt of a run or a search, with a checksum of its content."""
    content = {name: value for name, value in content.items() if name != "sha256"}
    write_json(path / RECEIPT, {**content, "sha256": json_digest(content)})


def read_signed(path: Path, kind: Any, names: Callable[[Any], Collection[str]]) -> Any:
    """Return the receipt of a run or a search.

    Args:
      path: folder of the run or the search.
      kind: type of the content, a `TypedDict`.
      names: function of the content that returns the files whose checksums it must contain.

    Raises:
      ValueError: if the file is damaged.
    """
    try:
        receipt = check_kind("content", read_json(path / RECEIPT), kind)
        if json_digest({name: value for name, value in receipt.items() if name != "sha256"}) != receipt["sha256"]:
            raise ValueError("its content does not match its SHA-256")
        files, expected = receipt["files"], names(receipt)
        if files.keys() | {REPORT} != set(expected):  # older runs have no checksum of the report
            raise ValueError(f"expected the checksums of {', '.join(expected)}, got {', '.join(files)}")
    except (ValueError, OSError) as error:
        raise ValueError(f"{path / RECEIPT} is damaged: {error}") from error
    return receipt


def update_report_checksum(path: Path, receipt: Mapping[str, Any]) -> None:
    """Update only the checksum of REPORT in the receipt, after the report was written again."""
    write_signed(path, {**receipt, "files": {**receipt["files"], REPORT: file_digest(path / REPORT)}})


def file_changes(path: Path, name: str, checksums: set[str | None], since: str) -> list[str]:
    """Describe a file that is missing or does not match its checksums; return [] for an unchanged file.

    Args:
      path: folder of the run, the sweep or the search.
      name: name of the file.
      checksums: the expected checksums, which should all be equal.
      since: "run", "sweep" or "search", for the message.
    """
    try:
        settings = name in (CONFIG, SWEEP, SEARCH)
        checksum = settings_digest(read_json(path / name)) if settings else file_digest(path / name)
    except OSError as error:
        return [f"{name} cannot be read: {error.strerror}"]
    return [] if checksums == {checksum} else [f"{name} has changed since the {since}: it does not match its SHA-256"]


def changes(path: Path, names: Iterable[str]) -> list[str]:
    """Describe each of the named files that is missing or does not match its checksums in CONFIG and the receipt."""
    recorded, receipt = read_json(path / CONFIG)["sha256"], load_receipt(path)
    expected = {CONFIG: {recorded.get("settings")}, TABLE: {recorded.get(TABLE)}}
    if receipt is not None:
        for name, checksum in {**receipt["files"], CONFIG: receipt["settings"]}.items():
            expected.setdefault(name, set()).add(checksum)
    known = [name for name in names if name in expected]
    return [problem for name in known for problem in file_changes(path, name, expected[name], "run")]


def check_files(path: Path, names: Sequence[str]) -> None:
    """Check that none of the named files has changed since the run finished.

    Raises:
      ValueError: if a file has changed.

    Warns:
      UserWarning: if the receipt is missing; then only CONFIG and TABLE can be checked.
    """
    if load_receipt(path) is None:
        unknown = [name for name in names if name not in (CONFIG, TABLE)]
        warnings.warn(
            f"{path} has no {RECEIPT}, so it is not certain that {' and '.join(unknown)} belong to this run",
            stacklevel=2,
        )
    _refuse(path, changes(path, names))


def _refuse(path: Path, problems: Sequence[str]) -> None:
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}; restore the file, or train again")
