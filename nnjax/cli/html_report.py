"""Write report.html, a self-contained page about a run with its settings, layers, scores and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nnjax import nn
from nnjax.cli import html_page, run_folder
from nnjax.cli.baseline import baseline
from nnjax.cli.config import LEARNING_RATES, Config, fit_batch, with_defaults
from nnjax.cli.console import option_name, quote
from nnjax.cli.pictures import Subject, describe, main_score
from nnjax.data.table import Task
from nnjax.storage.atomic_write import write_file
from nnjax.storage.json_file import read_json
from nnjax.train.engine.ensemble import platform_strategy

MOST_CLASSES = 100  # maximum number of rows in the table of recalls
CAPTIONS = {
    "curves": "Loss and score after each epoch. If the validation loss rises while the training loss falls, the "
    "network overfits: more --weight-decay or --dropout, or --patience. If both still fall at the end, train longer.",
    "confusion": "The true and the predicted class of each test row. The mistakes are off the diagonal.",
    "reliability": "The accuracy at each predicted probability. Points below the diagonal are overconfident. The bars "
    "below count the test rows; few rows make wide intervals.",
    "uncertain": "The test images with the most uncertain predictions. Red: misclassified.",
    "mistakes": "The misclassified test images, the most confident first. Look here for wrong labels.",
    "first_layer": "The weights of each hidden unit in the first layer. Bright pixels raise the unit's input in red "
    "areas and lower it in blue areas. Weights look like noise at pixels that are always dark, or after a short "
    "training.",
    "regions": "The predicted class for all values of the two features. In pale areas, several classes are almost "
    "equally probable.",
    "surface": "The prediction for all values of the two features. A test row whose colour differs from its "
    "surroundings is mispredicted.",
    "function": "The prediction against the only feature. In regions without rows, it is a guess.",
    "importance": "The drop in the test score when the values of one column are shuffled among the rows. If its "
    "interval contains 0, the column may be useless. Columns with the same information share their importance.",
    "predictions": "Each test row's prediction against its true value.",
    "residuals": "The errors against the predictions. A trend means that the network could still learn more. A funnel "
    "means that some values are harder to predict than others.",
    "spread": "The scores of the members, which differ only in their seed, and the score of the averaged prediction.",
    "ensemble_size": "How accuracy and negative log-likelihood improve with the number of networks that are averaged.",
    "rejection": "The accuracy of the other predictions if a person decides the most uncertain ones.",
}
SCORES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auc": "AUC",
    "nll": "negative log-likelihood (nats)",
    "brier": "Brier score",
    "expected_calibration_error": "calibration error",
    "r2": "R²",
    "rmse": "RMSE",
}


def write_report(path: Path, subject: Subject, pictures: Mapping[str, bytes], weights: str) -> None:
    """Write report.html into the folder of a run.

    Args:
      path: folder of the run, which contains its settings.
      subject: the run.
      pictures: PNG files, keyed by name; empty for a report without pictures.
      weights: SHA-256 of the parameters and the state.
    """
    config, prepared, outcome, _, _ = subject
    table = prepared.dataset.table
    name = Path(config.data).name
    headline = "the training diverged" if outcome.scores is None else main_score(outcome.scores) or "a trained network"
    title = f"{name}: {headline}"
    rows = [len(part.x) for part in (prepared.training, prepared.held_out, prepared.dataset.test) if part is not None]
    kinds = ["training", *(["validation"] if prepared.held_out is not None else []), "test"]
    split = ", ".join(f"{n:,} {kind}" for n, kind in zip(rows, kinds, strict=True))
    features = np.shape(prepared.training.x)[1]
    noun = "feature" if features == 1 else "features"
    figures = [(name, png, CAPTIONS.get(name.rstrip("_0123456789"), name)) for name, png in pictures.items()]
    body = [
        html_page.header(
            title,
            describe(config, outcome.scores),
            f"{table.task.capitalize()} ({prepared.dataset.why}): rows {split}; {features} {noun}.",
        ),
        html_page.columns(
            html_page.section("Test scores", *_scores(subject)),
            html_page.section("Classes", _recall(subject)),
            html_page.section("Members", _members(subject)),
        ),
        html_page.section("Pictures", html_page.pictures(figures)),
        html_page.columns(
            html_page.section("Network", _layers(subject)),
            html_page.section("Settings", _settings(config, table.task, np.shape(prepared.training.x))),
        ),
        html_page.section("Reproduce", *_reproduce(path, subject, weights)),
    ]
    write_file(path / run_folder.REPORT, html_page.page(title, [part for part in body if part]))


def _scores(subject: Subject) -> list[str]:
    """Return the HTML of a table of the test scores and the baseline scores, and of the notes on it."""
    _, prepared, outcome, _, summary = subject
    if outcome.scores is None:
        return [html_page.paragraph("The training diverged, so there is no network to test.")]
    table, test = prepared.dataset.table, prepared.dataset.test
    constant = baseline(table, prepared.training, test)
    scores = dict(outcome.scores) | {k: summary[k] for k in ("balanced_accuracy", "auc") if summary.get(k) is not None}
    unit = f"in the units of {table.target}" if table.several is None else "in standard deviations"
    rows = []
    for name in [name for name in SCORES if name in scores]:
        label = SCORES[name] + (f" ({unit})" if name == "rmse" else "")
        rows.append([label, html_page.number(scores[name]), html_page.number(constant.scores.get(name))])
    for target in table.target_names if table.several is not None else ():
        values = (kind.get(f"r2({target})") for kind in (scores, constant.scores))
        rows.append([f"R² of {target}", *map(html_page.number, values)])
    explanation = f"The baseline is a constant prediction: {constant.prediction}."
    if outcome.member_scores is not None and len(outcome.member_scores) > 1:
        explanation = f"The test scores are for the members' averaged prediction. {explanation}"
    notes = [html_page.paragraph(explanation, faint=True)]
    if "best_step" in summary or any("best_step" in member for member in summary.get("members", ())):
        notes.append(
            html_page.paragraph(
                "Early stopping: the network with the lowest validation loss was tested and saved.", faint=True
            )
        )
    return [html_page.table(["score", "test", "baseline"], rows, strong=[0]), *notes]


def _recall(subject: Subject) -> str:
    """Return the HTML of the recalls, lowest first and then most test rows first, or "" if there are none."""
    _, prepared, outcome, _, summary = subject
    recall = summary.get("recall")
    if outcome.scores is None or not recall:
        return ""
    classes = prepared.dataset.table.classes
    counts = np.bincount(np.asarray(prepared.dataset.test.y), minlength=len(classes))
    predicted_counts = np.bincount(outcome.prediction.argmax(1), minlength=len(classes))
    numbers = dict(zip(classes, zip(counts.tolist(), predicted_counts.tolist(), strict=True), strict=True))
    rows = [
        [name, html_page.number(recall[name]), f"{numbers[name][0]:,}", f"{numbers[name][1]:,}"]
        for name in sorted(recall, key=lambda name: (recall[name], -numbers[name][0]))[:MOST_CLASSES]
    ]
    return html_page.table(["class", "recall", "test rows", "predicted"], rows)


def _members(subject: Subject) -> str:
    """Return the HTML of statistics of the members' scores and of the uncertainty of their average.

    Return "" if there are fewer than two members.
    """
    _, _, outcome, _, summary = subject
    if outcome.member_scores is None or outcome.scores is None or len(outcome.member_scores) < 2:
        return ""
    used = [scores for i, scores in enumerate(outcome.member_scores) if i not in outcome.left_out]
    rows = []
    for name in [name for name in SCORES if name in used[0]]:
        values = np.array([scores[name] for scores in used], float)
        sd = values.std(ddof=1) if len(values) > 1 else float("nan")
        rows.append([SCORES[name], *map(html_page.number, (values.mean(), sd, values.min(), values.max()))])
    parts, notes = summary.get("uncertainty", {}), []
    if "sd" in parts:
        text = f"Mean standard deviation of the members' predictions: {html_page.number(parts['sd'])}."
        notes.append(html_page.paragraph(text, faint=True))
    elif parts:
        numbers = ", ".join(f"{name} {html_page.number(value)}" for name, value in parts.items())
        notes.append(html_page.paragraph(f"Mean uncertainty of the prediction in nats: {numbers}.", faint=True))
    if outcome.left_out:
        notes.append(html_page.paragraph(f"Members left out because they diverged: {list(outcome.left_out)}."))
    return "\n".join([html_page.table(["score", "mean", "sd", "min", "max"], rows), *notes])


def _layers(subject: Subject) -> str:
    prepared = subject.prepared
    x = prepared.training.x
    summary = nn.summary(nn.as_layer(prepared.run.net), jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype))
    rows = [[" " * 2 * (len(row.path) - 1) + row.name, row.output, f"{row.params:,}"] for row in summary.rows]
    rows.append([f"{summary.name}, total", "", f"{summary.params:,}"])
    return html_page.table(["layer", "output", "parameters"], rows, strong=[len(rows) - 1])


def _settings(config: Config, task: Task, shape: tuple[int, ...]) -> str:
    """Return a table of all settings, given the shape of the training data. Those that are not defaults are bold."""
    plain = Config("", optimizer=config.optimizer, batch_size=config.batch_size)
    defaults = asdict(with_defaults(plain, task, *shape))
    defaults |= {"optimizer": Config("").optimizer, "batch_size": fit_batch(Config(""), shape[0]).batch_size}
    settings = {name: value for name, value in asdict(config).items() if value is not None}
    settings.setdefault("learning_rate", LEARNING_RATES[config.optimizer])
    defaults |= {"learning_rate": LEARNING_RATES[config.optimizer], "strategy": platform_strategy()}
    defaults["data"] = config.data
    rows = [[option_name(name) if name != "data" else "data", _setting(value)] for name, value in settings.items()]
    changed = [i for i, (name, value) in enumerate(settings.items()) if value != defaults[name]]
    note = html_page.paragraph("Bold settings differ from their defaults.", faint=True)
    return html_page.table([], rows, strong=changed) + note


def _reproduce(path: Path, subject: Subject, weights: str) -> Sequence[str]:
    """Return the HTML of the commands that verify, use and plot the run, and of its versions, timings and checksum."""
    folder = quote(path)
    commands = [
        (f"nnjax verify {folder}", "train again from the seed, and compare the weights bit for bit"),
        (f"nnjax predict {folder} FILE", "predict new rows"),
        (f"nnjax plot {folder}", "draw the pictures and this page again"),
    ]
    content = read_json(path / run_folder.CONFIG)
    seconds = subject.summary["seconds"]
    return [
        html_page.commands(commands),
        html_page.version_line(content["versions"]),
        html_page.paragraph(
            f"{subject.summary['steps']:,} steps; compilation {seconds['compile']:.2f} s, training "
            f"{seconds['train']:.2f} s, validation {seconds['validate']:.2f} s.",
            faint=True,
        ),
        html_page.paragraph(f"SHA-256 of parameters and state: {weights}.", faint=True),
    ]


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
