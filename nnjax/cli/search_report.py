"""Draw the pictures of a search, and write report.html, a page with its scores, trials and settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nnjax import plot
from nnjax.cli import html_page, run_folder
from nnjax.cli.config import STRUCTURAL, SWEEPABLE
from nnjax.cli.console import option_name, quote
from nnjax.cli.history import VALIDATION_SCORES, in_words
from nnjax.cli.html_report import SCORES
from nnjax.cli.pictures import describe, main_score
from nnjax.cli.search_request import OWN, Request
from nnjax.cli.search_result import SearchResult, describe_members, early_fidelity
from nnjax.plot._trials import missing_for_importance
from nnjax.storage.atomic_write import write_file
from nnjax.storage.json_file import read_json

MOST_ROWS = 200  # maximum number of trials in the table
CAPTIONS = {
    "search": "The validation score of each trial against each setting; lower is better. Colours show after how many "
    "epochs the trial ended. If the best trial (star) is at an end, extend the range. If there are enough trials, "
    "“explains” is the share of the variance in the scores at the first comparison that the setting explains.",
    "progress": "The validation scores in the order in which the trials began, and the lowest score so far. If the "
    "line still falls at the end, more trials may find a better setting.",
    "importance": "How much of the differences between the scores at the first comparison each setting explains alone. "
    "A bar that ends before the red line could be chance. The rest is noise and interactions between settings.",
    "parallel": "Each line is a trial; dark lines have low scores. If dark lines meet at a value of an axis, this "
    "value is good for all values of the other settings.",
}


class SearchSubject(NamedTuple):
    """The settings, trials and result of a search that its pictures and report show."""

    request: Request
    settings: Mapping[str, Any]  # the content of SEARCH
    table: Sequence[Mapping[str, Any]]  # one row per trial, best first
    result: SearchResult


def draw_search(path: Path, subject: SearchSubject, *, pictures: bool = True) -> list[str]:
    """Draw the pictures and write report.html into the folder of a search.

    Args:
      path: folder of the search, which contains its settings.
      subject: the search.
      pictures: False for a report without pictures.

    Returns:
      The names of the files that were written.
    """
    files = {}
    if pictures:
        for name, figure in _figures(subject).items():
            files[name] = plot.png(figure)
            write_file(path / f"{name}.png", files[name])
    write_file(path / run_folder.REPORT, _page(path, subject, files))
    return [*(f"{name}.png" for name in files), run_folder.REPORT]


def describe_search(subject: SearchSubject) -> str:
    """Summarise the data, the settings that all trials share, and the search itself."""
    request, settings = subject.request, subject.settings
    common = describe(request.config, omit=tuple(request.space))
    return f"{common} · {len(subject.table)} trials, method {settings['method']}"


def _figures(subject: SearchSubject) -> dict[str, Any]:
    request, _, table, _ = subject
    names, log, context = list(request.space), _log_names(request), describe_search(subject)
    figures = {
        "search": plot.search(table, names, log, context=context),
        "progress": plot.search_progress(table, context=context),
        "importance": plot.search_importance(table, names, context=context),
        "parallel": plot.parallel_coordinates(table, names, log, context=context),
    }
    if missing_for_importance(table, names):
        del figures["importance"]
    return figures


def _log_names(request: Request) -> list[str]:
    """Return the settings to plot on a log scale, which are log-uniform or span more than a factor of ten."""
    numbers = {name: d for name, d in request.space.items() if d.kind != "structure"}
    return [name for name, d in numbers.items() if d.kind == "log" or max(d.values) > 10 * min(d.values) > 0]


def _page(path: Path, subject: SearchSubject, files: Mapping[str, bytes]) -> bytes:
    request, _, _, result = subject
    name = Path(request.config.data).name
    title = f"{name}: {_headline(result)}"
    figures = [(name, png, CAPTIONS[name]) for name, png in files.items()]
    ranges = ", ".join(f"{option_name(name)} {text}" for name, text in request.ranges.items())
    body = [
        html_page.header(title, describe_search(subject), f"Searched: {ranges}.", result["data"]),
        html_page.columns(
            html_page.section("Test scores", *_scores(result)),
            html_page.section("Can early scores be trusted?", *_fidelity(subject)),
        ),
        html_page.section(
            "Notes", *(html_page.paragraph(f"{note[:1].upper()}{note[1:]}.") for note in result["notes"])
        ),
        html_page.section("Pictures", html_page.pictures(figures)),
        html_page.section("Trials, the best first", *_trials(subject)),
        html_page.columns(
            html_page.section("Search", _own_settings(subject)),
            html_page.section("Settings of all trials", _common_settings(subject)),
        ),
        html_page.section("Reproduce", *_reproduce(path, subject)),
    ]
    return html_page.page(title, [part for part in body if part])


def _headline(result: SearchResult) -> str:
    if score := main_score(result["test"] or {}):
        return f"best setting of a search, {score}"
    return "a search" if result["best"] is not None else "all trials of a search diverged"


def _scores(result: SearchResult) -> list[str]:
    """Return the HTML of a table with the test scores of the best setting, the ensemble and a constant prediction."""
    if result["test"] is None:
        return [html_page.paragraph("All trials diverged, so there is no network to test.")]
    best, ensemble, constant = result["test"], result["ensemble_test"] or {}, result["baseline"]
    rows = [
        [SCORES[name], *(html_page.number(scores.get(name)) for scores in (best, ensemble, constant))]
        for name in SCORES
        if name in best
    ]
    several = [name for name in best if name.startswith("r2(")]  # R² of each target, if there are several
    rows += [
        [f"R² of {name[3:-1]}", *(html_page.number(scores.get(name)) for scores in (best, ensemble, constant))]
        for name in several
    ]
    return [
        html_page.table(["score", "best", "ensemble", "baseline"], rows, strong=[0]),
        html_page.paragraph(
            f"The best setting is trial {result['best']}, after {result['epochs']:g} epochs. {_ensemble(result)} The "
            f"baseline is a constant prediction: {result['baseline_prediction']}. The test rows were not used before "
            "these scores.",
            faint=True,
        ),
    ]


def _ensemble(result: SearchResult) -> str:
    """Return a sentence on the selection of the ensemble."""
    if set(result["ensemble"]) == {result["best"]}:
        return "The ensemble is this trial alone, because no other trial lowers its validation loss."
    return (
        f"The {describe_members(result['ensemble'])} was selected by its validation loss; a trial that is selected "
        "several times counts several times."
    )


def _fidelity(subject: SearchSubject) -> list[str]:
    """Return the HTML of a table of rank correlations between early and final scores, and of the best trial's lead."""
    request, _, table, result = subject
    last = request.rungs[-1]
    rows = [
        [f"{epochs:g}", html_page.number(correlation), f"{trials:,}"]
        for epochs, correlation, trials in early_fidelity(result, table, request.rungs)
    ]
    parts = []
    if rows:
        what = (
            f"Spearman's rank correlation between the scores at each rung and those after {last:g} epochs, over the "
            "trials that have both. If trials were stopped early, these are the best ones, and the correlation over "
            "all trials may be higher. A dash means fewer than 3 trials, or equal scores."
        )
        parts = [html_page.table(["epochs", "correlation", "trials"], rows), html_page.paragraph(what, faint=True)]
    if (d := result["advantage"]) is not None:
        noise = "; this is within noise" if d["low"] <= 0 else ""
        parts.append(
            html_page.paragraph(
                f"The best trial is better than the second by {d['difference']:.3g} [{d['low']:.3g}, {d['high']:.3g}] "
                f"(95 %, {d['n']} {'folds' if subject.settings['folds'] else 'seeds'}){noise}."
            )
        )
    return parts


def _trials(subject: SearchSubject) -> list[str]:
    request, _, table, _ = subject
    names = list(request.space)
    scores = [name for name in VALIDATION_SCORES if table and name in table[0]]
    rows = []
    for row in table[:MOST_ROWS]:
        settings = [f"{row[name]:.4g}" if isinstance(row[name], float) else str(row[name]) for name in names]
        numbers = [f"{row['epochs']:g}", *(html_page.number(row[name]) for name in ("score", *scores))]
        rows.append([f"{row['trial']}", *settings, *numbers, row["status"]])
    words = [option_name(name) for name in names]
    header = ["trial", *words, "epochs", "score", *map(in_words, scores), "status"]
    most = f"The best {MOST_ROWS} of {len(table):,} trials; all are in {run_folder.TRIALS}. "
    which = most if len(table) > MOST_ROWS else ""
    score = "negative log-likelihood" if "label_smoothing" in request.space else "loss"
    note = f"{which}The score is the lowest validation {score} at any rung."
    return [html_page.table(header, rows, strong=[0]), html_page.paragraph(note, faint=True)]


def _own_settings(subject: SearchSubject) -> str:
    settings = subject.settings
    rows = [[option_name(name), text] for name, text in subject.request.ranges.items()]
    rows += [[option_name(name), f"{settings[name]}"] for name in OWN if settings[name] is not None]
    return html_page.table([], rows)


def _common_settings(subject: SearchSubject) -> str:
    settings = subject.settings
    unused = {"epochs", "members", "group", "save_every", "keep", "skip"} | (
        {"validation"} if settings["folds"] else set()
    )
    skipped = {*OWN, *subject.request.space, *run_folder.NOTES} | unused
    common = {name: value for name, value in settings.items() if name not in skipped and value is not None}
    ordered = {name: common[name] for name in ("data", *SWEEPABLE, *STRUCTURAL) if name in common} | common
    rows = [[option_name(name) if name != "data" else "data", str(value)] for name, value in ordered.items()]
    return html_page.table([], rows)


def _reproduce(path: Path, subject: SearchSubject) -> list[str]:
    folder, result, content = quote(path), subject.result, read_json(path / run_folder.SEARCH)
    commands = [] if result["command"] is None else [(result["command"], "train the best setting, and test it")]
    commands += [
        (f"nnjax verify {folder}", "check the files and all decisions, and train the best trial again"),
        (
            f"nnjax predict {folder} FILE",
            "predict new rows; --ensemble averages the best networks",
        ),
        (f"nnjax replay {folder} --trial {result['best'] or 0}", "train a trial again, and compare its scores"),
        (f"nnjax plot {folder}", "draw the pictures and this page again"),
    ]
    seconds = result["seconds"]
    return [
        html_page.commands(commands),
        html_page.version_line(content["versions"]),
        html_page.paragraph(
            f"Compilation {seconds['compile']:.2f} s, training {seconds['train']:.2f} s, validation "
            f"{seconds['validate']:.2f} s, in all {seconds['total']:.2f} s.",
            faint=True,
        ),
    ]
