"""Print the layers of the network, and after the training its scores, early stopping, divergence and duration."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from rich.markup import escape
from rich.table import Table as Grid

from nnjax import nn
from nnjax.cli.baseline import Baseline, ClassScores, baseline, class_scores
from nnjax.cli.config import Config
from nnjax.cli.console import console, note, quote, say
from nnjax.cli.evaluation import Outcome, Scores
from nnjax.cli.prepare import Prepared
from nnjax.train import Result

MOST_CLASSES = 10  # maximum number of classes whose recall is printed
LEAST_FOR_RECALL = 3  # minimum number of test rows of a class; with fewer, its recall is mostly chance
# With fewer than FEW_ROWS test rows, scores are unreliable; with at least MANY_ROWS, perfect scores are suspicious
FEW_ROWS, MANY_ROWS = 20, 50
ALL_RIGHT = 0.99999  # larger accuracies are perfect; a mean in float32 may be slightly less than 1
PERFECT = 0.999  # a larger R² suggests that a feature is a copy of the target


def print_network(prepared: Prepared) -> None:
    """Print the layers, with their output shapes and numbers of parameters."""
    if jax.process_index() > 0:
        return
    x = prepared.training.x
    summary = nn.summary(nn.as_layer(prepared.run.net), jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype))
    grid = Grid("layer", "output", title=None, header_style="bold")
    grid.add_column("parameters", justify="right")
    for row in summary.rows:
        grid.add_row("  " * (len(row.path) - 1) + row.name, row.output, f"{row.params:,}")
    grid.add_section()
    grid.add_row(summary.name, "", f"{summary.params:,}")
    console.print(grid)


def print_scores(outcome: Outcome, prepared: Prepared) -> None:
    """Print the test scores and the scores of a constant prediction.

    For an ensemble, print the scores of the members first. Print nothing if the training diverged.
    """
    scores, dataset, table = outcome.scores, prepared.dataset, prepared.dataset.table
    if scores is None:
        return
    classify = table.task == "classification"
    constant = baseline(table, prepared.training, dataset.test)
    averaged = ""
    if outcome.member_scores is not None:
        members = [scores for i, scores in enumerate(outcome.member_scores) if i not in outcome.left_out]
        averaged = f"   (averaged prediction of {len(members)})" if len(members) > 1 else ""
        if outcome.left_out:
            numbers = _shorten([str(i) for i in outcome.left_out])
            say(f"[bold yellow]left out[/] of the average: members that diverged, {numbers}")
        say(_spread(members, "accuracy", "accuracy", ".4f") if classify else _spread(members, "r2", "R²", ".4f"))
        say(_spread(members, "nll", "NLL", ".4f") if classify else _spread(members, "rmse", "RMSE", ".4g"))
    if classify:
        say(
            f"[bold]test accuracy {scores['accuracy']:.4f}[/]   NLL {scores['nll']:.4f} nats   Brier "
            f"{scores['brier']:.4f}   calibration error {scores['expected_calibration_error']:.4f}{averaged}"
        )
        trained = prepared.config.epochs != 0
        print_classes(class_scores(table, outcome.prediction, dataset.test), constant, trained=trained)
    else:
        several = table.several is not None
        unit = "(in standard deviations)" if several else f"(in the units of {escape(table.target)})"
        say(f"[bold]test R² {_score(scores['r2'])}[/]   RMSE {scores['rmse']:.4g} {unit}{averaged}")
        for name in table.target_names if several else ():
            say(escape(f"{name}: R² {_score(scores[f'r2({name})'])}   RMSE {scores[f'rmse({name})']:.4g}"))
        say(f"{constant.prediction}: R² {_score(constant.scores['r2'])}   RMSE {constant.scores['rmse']:.4g}")
    if caution := describe_caution(scores, len(dataset.test.x), named=dataset.rows is None):
        note(caution)
    if outcome.member_scores is None or len(outcome.member_scores) == 1:
        return
    parts = outcome.uncertainty
    if classify:
        say(
            f"mean uncertainty {parts['total']:.4f} nats = {parts['aleatoric']:.4f} aleatoric (noise in the data) "
            f"+ {parts['epistemic']:.4f} epistemic (disagreement between members)"
        )
    else:
        say(f"mean standard deviation of the members' predictions {parts['sd']:.4g}")


def describe_caution(scores: Mapping[str, float], rows: int, *, named: bool, columns: bool = True) -> str:
    """Return a warning if few test rows or a leaked target may make the test scores misleading, else "".

    Args:
      scores: the test scores.
      rows: number of test rows.
      named: True for a named data set, whose features are known not to leak the target.
      columns: True if importance.png shows the importance of the columns.

    >>> from nnjax.cli.report import describe_caution
    >>> describe_caution({"accuracy": 0.5}, 6, named=False)
    'the test set has only 6 rows, so its scores are mostly chance; repeat with a different --seed, or use more rows'
    """
    if rows < FEW_ROWS:
        plural = "row" if rows == 1 else "rows"
        return (
            f"the test set has only {rows} {plural}, so its scores are mostly chance; repeat with a different --seed, "
            "or use more rows"
        )
    perfect = scores.get("accuracy", 0) > ALL_RIGHT or scores.get("r2", 0) > PERFECT
    if perfect and rows >= MANY_ROWS and not named:
        hint = "; importance.png shows the most important columns" if columns else ""
        return f"these scores are nearly perfect: check that no column is derived from the target{hint}"
    return ""


def print_classes(scores: ClassScores, constant: Baseline, *, trained: bool = True) -> None:
    """Print the baseline, the balanced accuracy and the recalls, and warn of classes that are never predicted.

    The warning is omitted unless the network was `trained`.
    Classes with fewer than `LEAST_FOR_RECALL` test rows are listed in a note instead of the warning. If there are more
    than `MOST_CLASSES` classes, these are also omitted from the lowest recalls.
    """
    auc = "" if scores.auc is None else f"   AUC {scores.auc:.4f}"
    say(
        f"{escape(constant.prediction)}: accuracy {constant.scores['accuracy']:.4f}; balanced accuracy "
        f"{scores.balanced_accuracy:.4f}{auc}"
    )
    unsure = [name for name, rows in scores.rows.items() if rows < LEAST_FOR_RECALL]
    names = sorted(scores.recall, key=lambda name: (scores.recall[name], -scores.rows[name]))
    heading = "recall (test rows)"
    if len(names) > MOST_CLASSES:
        heading = f"lowest recall of {len(names)} classes (test rows)"
        names = ([name for name in names if name not in unsure] or names)[:MOST_CLASSES]
    say(f"{heading}: " + ", ".join(f"{escape(name)} {scores.recall[name]:.4f} ({scores.rows[name]})" for name in names))
    if trained and (never := [name for name in scores.never if name not in unsure]):
        listed = _shorten([f"{name!r} ({scores.rows[name]} rows)" for name in never])
        say(
            f"[bold yellow]warning[/] never predicted: {escape(listed)}; try --class-weights balanced, which weights "
            "rare classes more"
        )
    if unsure:
        listed = _shorten([repr(name) for name in unsure])
        note(f"fewer than {LEAST_FOR_RECALL} test rows, too few to judge the recall: {listed}")


def _score(value: float) -> str:
    """Format R², which is undefined if the target is constant in the test rows."""
    return f"{value:.4f}" if np.isfinite(value) else "undefined (the target is constant in the test rows)"


def _spread(members: list[Scores], name: str, label: str, form: str) -> str:
    values = np.array([scores[name] for scores in members])
    sd, terms = (f" ± {values.std(ddof=1):{form}}", "mean ± sd") if len(values) > 1 else ("", "mean")
    low, middle, high = (f"{v:{form}}" for v in (values.min(), np.median(values), values.max()))
    return f"members' {label} {values.mean():{form}}{sd} ({terms}), min {low}, median {middle}, max {high}"


def _shorten(words: Sequence[str]) -> str:
    return ", ".join(words[:10]) + (f", … ({len(words)} in all)" if len(words) > 10 else "")


def print_divergence(path: Path, result: Result) -> None:
    """Print that the training diverged, so there is no network to test."""
    subject = "the run" if result.diverged.ndim == 0 else f"all {len(result.diverged)} members"
    step = f" in step {result.diverged}" if result.diverged.ndim == 0 and result.diverged >= 0 else ""
    say(
        f"[bold red]{subject} diverged[/]{step}: there is no network to test; nnjax replay {escape(quote(path))} "
        "finds the cause"
    )


def print_early_stopping(result: Result, config: Config) -> None:
    """Print whether early stopping ended the training, and the epoch of the saved network."""
    if config.patience is None or result.best is None:
        return
    epoch_of = {record["step"]: record["epoch"] for record in result.history}
    epochs = np.array([epoch_of.get(int(step), 0) for step in np.atleast_1d(result.best.step)])
    stopped = np.atleast_1d(result.stopped)
    if config.members is None:
        never = config.epochs is not None and config.patience >= config.epochs
        end = "stopped early; " if stopped[0] else "" if never else "not stopped early; "
        end = end if result.diverged < 0 else f"diverged in step {result.diverged}; "
        say(f"{end}the network with the lowest validation loss, from epoch {epochs[0]:.4g}, is tested and saved")
        return
    span = f"{epochs.min():.4g}" + (f" to {epochs.max():.4g}" if np.ptp(epochs) else "")
    say(
        f"{stopped.sum()} of {len(stopped)} networks stopped early; each is tested and saved at its lowest validation "
        f"loss, from epoch {span}"
    )


def print_seconds(result: Result, *, resumed: bool) -> None:
    """Print the duration of compilation, training and validation."""
    seconds = result.seconds
    steps = int(np.asarray(result.ts.step).sum())
    rate = f"{steps:,} {'step' if steps == 1 else 'steps'}" + (
        "" if resumed else f", {steps / max(seconds.train, 1e-9):,.0f} per second"
    )
    since = ", since the run was resumed" if resumed else ""
    say(
        f"compile {seconds.compile:.2f} s, train {seconds.train:.2f} s ({rate}), "
        f"validate {seconds.validate:.2f} s{since}"
    )
