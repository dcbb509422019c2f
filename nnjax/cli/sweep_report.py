"""Draw the pictures of a sweep, and write report.html, a page with its settings and their scores."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nnjax import plot
from nnjax.cli import html_page, run_folder
from nnjax.cli.config import Config
from nnjax.cli.console import option_name
from nnjax.cli.history import VALIDATION_SCORES, in_words
from nnjax.cli.hyperparameters import Values
from nnjax.cli.pictures import describe
from nnjax.storage.atomic_write import write_file

MOST_ROWS = 200  # maximum number of settings in the table


class SweepSubject(NamedTuple):
    """The settings and scores of a sweep that its pictures and report show."""

    config: Config  # the settings that are not swept
    swept: Mapping[str, Values]
    table: Sequence[Mapping[str, Any]]  # one row per setting, best first
    score: str  # the column by which the rows are ranked
    seeds: int


def draw_sweep(path: Path, subject: SweepSubject, *, command: str = "") -> None:
    """Draw a picture for each pair of swept hyper-parameters, or for the only one, and write report.html.

    Args:
      path: folder of the sweep.
      subject: the sweep.
      command: the command that trains and tests the best setting; empty if all diverged.
    """
    _, swept, table, score, _ = subject
    log = [name for name, v in swept.items() if v.spacing == "log" or v.high > 10 * v.low > 0]
    context = describe_sweep(subject)
    pictures = {}
    for names in itertools.combinations(swept, min(2, len(swept))):
        picture = plot.png(plot.sweep(table, names, log=log, score=score, context=context))
        pictures["-".join(names)] = picture
        write_file(path / f"{'-'.join(names)}.png", picture)
    write_file(path / run_folder.REPORT, _page(subject, pictures, command))


def describe_sweep(subject: SweepSubject) -> str:
    """Return one line with the data, the constant settings, the number of settings and seeds, and the swept ranges."""
    config, swept, table, _, seeds = subject
    times = f" × {seeds} seeds" if seeds > 1 else ""
    ranges = ", ".join(f"{option_name(name)} {v.text}" for name, v in swept.items())
    common = describe(config, omit=tuple(swept))
    return f"{common} · {len(table)} settings{times} of {ranges}"


def _page(subject: SweepSubject, pictures: Mapping[str, bytes], command: str) -> bytes:
    config, swept, table, score, seeds = subject
    name = Path(config.data).name
    scores = [score, *(name for name in VALIDATION_SCORES if name in table[0])]
    rows = []
    for row in table[:MOST_ROWS]:
        cells = [f"{row[name]:.4g}" for name in swept]
        cells += [f"{row[name]:.4f}" + (f" ± {row[f'{name}_sd']:.4f}" if seeds > 1 else "") for name in scores]
        rows.append([*cells, "diverged" if row.get("diverged", 0) else ""])
    header = [*(option_name(name) for name in swept), *map(in_words, scores), ""]
    captions = "Each point is a setting; the star has the lowest score. If the star is at the edge, extend the range."
    body = [
        html_page.header(f"Sweep of {', '.join(map(option_name, swept))} on {name}", describe_sweep(subject)),
        html_page.section("Pictures", html_page.pictures((name, png, captions) for name, png in pictures.items())),
        html_page.section(
            "Settings, the best first" if len(table) <= MOST_ROWS else f"The best {MOST_ROWS} of {len(table)} settings",
            html_page.table(header, rows, strong=[0]),
            html_page.paragraph("Ranked by the validation data only; the test data are not used.", faint=True),
        ),
    ]
    if command:
        purpose = "train the best setting again, and test it"
        body.append(html_page.section("Continue", html_page.commands([(command, purpose)])))
    return html_page.page(f"Sweep on {name}", body)
