"""Report the problems of all columns of a table in one message."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

Remedy = Literal["missing", "target", "words", "categorical", "na", "drop"]
Line = Callable[[int], str]

IN_PYTHON: Mapping[Remedy, str] = {
    "missing": "missing='median', 'mean' or 'category' fills missing values, 'drop' omits the rows that have any",
    "target": "missing='drop', or any other rule, omits the rows without a target",
    "words": "categorical=[{columns}] keeps words such as NA as categories",
    "categorical": "categorical=[{columns}] keeps the 100 most frequent strings",
    "na": "na=[{words}] declares strings that mark missing values",
    "drop": "drop=[{columns}] omits columns",
}


class Problem(NamedTuple):
    """A reason why a column cannot be used."""

    column: str
    text: str
    remedies: tuple[Remedy, ...] = ()
    word: str = ""  # a string that may mark a missing value, such as NA


class TableError(ValueError):
    """Error that lists the columns of a table that cannot be used.

    Attributes:
      problems: one problem for each of these columns.
    """

    def __init__(self, problems: Sequence[Problem]):
        super().__init__(describe(problems, IN_PYTHON, lambda names: ", ".join(map(repr, names))))
        self.problems = problems


def describe(problems: Sequence[Problem], remedies: Mapping[Remedy, str], join: Callable[[list[str]], str]) -> str:
    """Describe one problem in a sentence, or several problems on one line each, followed by the fixes.

    Args:
      problems: the problems, at least one.
      remedies: texts that explain each fix; the column names replace {columns}, and strings that may mark
        missing values replace {words}.
      join: function that formats a list of names or words for Python code or for the command line.
    """
    columns: dict[Remedy, list[str]] = {}
    for problem in problems:
        for remedy in problem.remedies:
            columns.setdefault(remedy, []).append(problem.column)
    words = join(sorted({problem.word for problem in problems if problem.word and len(problem.word) < 100}))
    fixes = [remedies[r].format(columns=join(columns[r]), words=words) for r in remedies if r in columns]
    if len(problems) == 1:
        return "; ".join([f"column {problems[0].column!r}: {problems[0].text}", *fixes])
    width = min(max(len(problem.column) for problem in problems), 30)
    lines = [f"  {problem.column:{width}}  {problem.text}" for problem in problems]
    return "\n".join([f"{len(problems)} columns cannot be used:", *lines, *fixes])


def line_numbers(lines: np.ndarray | None) -> Line:
    """Return a function that describes the position of a row: its line in the file, or its row number in memory."""
    return lambda row: f"row {row}" if lines is None else f"line {lines[row]}"


def missing_values(column: str, missing: np.ndarray, line: Line) -> Problem:
    """Return the problem that describes the missing values of a column, given as a mask (rows,)."""
    count = int(missing.sum())
    if missing.all():
        return Problem(column, f"all {count} values are missing")
    values = "1 value is" if count == 1 else f"{count} values are"
    return Problem(column, f"{values} missing, the first in {line(int(missing.argmax()))}")
