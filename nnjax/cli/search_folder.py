"""Read the folder of a finished search."""

import csv
from pathlib import Path
from typing import Any

from nnjax.cli import run_folder
from nnjax.cli.history import read_number
from nnjax.cli.search_receipt import check_files, load_receipt
from nnjax.cli.search_report import SearchSubject
from nnjax.cli.search_request import parse_request
from nnjax.cli.search_result import load_result
from nnjax.train.engine.options import Record
from nnjax.train.space import Dimension

WHOLE = ("trial", "diverged", "parent")  # columns that contain integers


def load_search(path: Path) -> SearchSubject:
    """Read the settings, the trials and the result of a finished search.

    Raises:
      FileNotFoundError: if the folder contains no search.
      ValueError: if the search is not finished, or if a file is damaged or has changed since the search.
    """
    settings = run_folder.load_search(path)  # first, because its error is clearer if this is not the folder of a search
    check_files(path, load_receipt(path))
    request, result = parse_request(settings), load_result(path)
    return SearchSubject(request, settings, read_trials(path / run_folder.TRIALS, request.space), result)


def read_trials(path: Path, space: dict[str, Dimension]) -> list[Record]:
    """Read the rows of TRIALS, and convert the settings to their original types.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: if a column is missing, or a field is not a number; the message names the column.
    """
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: _value(path, name, text, space) for name, text in row.items()} for row in csv.DictReader(file)]


def _value(path: Path, name: str, text: Any, space: dict[str, Dimension]) -> Any:
    if name == "status":
        return text
    try:
        if name in space and space[name].kind in ("choice", "structure"):
            values = {str(value): value for value in space[name].values}
            return values[text] if text in values else read_number(text)
        return int(text) if name in WHOLE else read_number(text)
    except (ValueError, TypeError):
        raise ValueError(f"{path} is damaged: {name} is {text!r}") from None
