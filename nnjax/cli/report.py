"""What came of a run: the scores on the test data, in words and in pictures."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from rich.markup import escape
from rich.table import Table as Grid

from nnjax import metrics, nn, plot, uncertainty
from nnjax.cli.config import Config
from nnjax.cli.shared import console, in_units, mean, say
from nnjax.data import Dataset
from nnjax.data.table import Table
from nnjax.storage.atomic_write import write_file
from nnjax.train.run import Run, metric_name
from nnjax.types import Data, PyTree, TrainState

Scores = dict[str, float]


class Outcome(NamedTuple):
    """The test of a network, or of an ensemble's averaged prediction."""

    scores: Scores | None  # None where nothing is finite
    prediction: np.ndarray  # (n, outputs), for classes logits
    members: list[Scores] | None  # those of each member
    left_out: list[int]  # members that diverged, whose scores are NaN
    outputs: np.ndarray | None  # (members, n, outputs) of those that did not
    parts: dict[str, float]  # the uncertainty on average: total, aleatoric, epistemic; for numbers sd


def test(run: Run, params: PyTree, state: PyTree, lost: np.ndarray, dataset: Dataset) -> Outcome:
    """Predict the test data, and score the prediction.

    Args:
      run: the run.
      params: of the network, or (members, ...).
      state: alike.
      lost: () or (members,), whether nothing is left of a network, as of one that diverged.
      dataset: whose test part is predicted.
    """
    data, unit = dataset.test, dataset.table.target_std
    ts = _state(params, state)
    if lost.ndim == 0:
        prediction = np.asarray(jax.jit(run.predict)(ts, data.x))
        if lost or not np.isfinite(prediction).all():
            return Outcome(None, prediction, None, [], None, {})
        scores = {name: float(value) for name, value in jax.jit(run.evaluate)(ts, data).items()}
        return Outcome(in_units(scores, unit), prediction, None, [], None, {})
    outputs = each_member(run, params, state, data.x)
    left_out = np.flatnonzero(lost | ~np.isfinite(outputs).all((1, 2))).tolist()
    score = jax.jit(lambda prediction: _scores(run, prediction, data))
    members = [in_units({k: float(v) for k, v in score(one).items()}, unit) for one in outputs]
    for member in left_out:  # the accuracy of NaN is a number too
        members[member] = dict.fromkeys(members[member], float("nan"))
    kept = np.delete(outputs, left_out, axis=0)
    if len(kept) == 0:
        return Outcome(None, outputs[0], members, left_out, None, {})
    average, doubt = averaged(jnp.asarray(kept), dataset.table)
    parts = {name: float(np.mean(value)) for name, value in doubt.items()}
    scores = in_units({k: float(v) for k, v in score(average).items()}, unit)
    return Outcome(scores, average, members, left_out, kept, parts)


def each_member(run: Run, params: PyTree, state: PyTree, x: Any) -> np.ndarray:
    """What each member predicts, (members, n, outputs)."""

    @jax.jit
    def predict(net: tuple[PyTree, PyTree], x: Any) -> Any:
        return lax.map(lambda one: run.predict(_state(*one), x), net)

    return np.asarray(predict((params, state), x))


def averaged(outputs: jax.Array, table: Table) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """An ensemble's prediction, for classes as logits, and its uncertainty (n,), by name; a target's in its units."""
    if table.task == "regression":
        sd = jnp.sqrt(uncertainty.variance_decomposition(outputs).epistemic[:, 0])
        return np.asarray(outputs.mean(0)), {"sd": np.asarray(sd) * table.target_std}
    parts = uncertainty.entropy_decomposition(outputs)._asdict()
    return np.asarray(uncertainty.log_mean_probabilities(outputs)), {k: np.asarray(v) for k, v in parts.items()}


def print_network(net: nn.Layer, training: Data) -> None:
    """The layers and their parameters."""
    summary = nn.summary(net, jax.ShapeDtypeStruct((1, *training.x.shape[1:]), training.x.dtype))
    grid = Grid("layer", "output", title=None, header_style="bold")
    grid.add_column("parameters", justify="right")
    for row in summary.rows:
        grid.add_row("  " * (len(row.path) - 1) + row.name, row.output, f"{row.params:,}")
    grid.add_section()
    grid.add_row(summary.name, "", f"{summary.params:,}")
    console.print(grid)


def print_scores(outcome: Outcome, table: Table) -> None:
    """The test in a few lines, an ensemble's members first; nothing where there is none."""
    scores, members = outcome.scores, outcome.members
    if scores is None:
        return
    classify = table.task == "classification"
    of = ""
    if members is not None:
        kept = [scores for i, scores in enumerate(members) if i not in outcome.left_out]
        of = f"   (averaged prediction of {len(kept)})" if len(kept) > 1 else ""
        if outcome.left_out:
            say(f"[bold yellow]left out[/] of the average: members that diverged, {_some(outcome.left_out)}")
        print_spread(kept, *(("accuracy", "accuracy", ".4f") if classify else ("r2", "R²", ".4f")))
        print_spread(kept, *(("nll", "NLL", ".4f") if classify else ("rmse", "RMSE", ".4g")))
    if classify:
        say(
            f"[bold]test accuracy {scores['accuracy']:.4f}[/]   NLL {scores['nll']:.4f} nats   "
            f"Brier {scores['brier']:.4f}   calibration error {scores['expected_calibration_error']:.4f}{of}"
        )
    else:
        unit = f"(in the units of {escape(table.target)})"
        say(f"[bold]test R² {scores['r2']:.4f}[/]   RMSE {scores['rmse']:.4g} {unit}{of}")
    parts = outcome.parts
    if members is not None and len(members) > 1 and classify:
        say(
            f"uncertainty {parts['total']:.4f} nats on average = {parts['aleatoric']:.4f} aleatoric (the members' own) "
            f"+ {parts['epistemic']:.4f} epistemic (between them)"
        )
    elif members is not None and len(members) > 1:
        say(f"the members' predictions differ by {parts['sd']:.4g} (their standard deviation, on average)")


def print_spread(members: list[Scores], name: str, label: str, form: str) -> None:
    """A score of the members in a line."""
    values = np.array([scores[name] for scores in members])
    sd, what = (f" ± {values.std(ddof=1):{form}}", "mean ± sd") if len(values) > 1 else ("", "mean")
    low, middle, high = (f"{v:{form}}" for v in (values.min(), np.median(values), values.max()))
    say(f"members' {label} {mean(values):{form}}{sd} ({what}), min {low}, median {middle}, max {high}")


def draw(path: Path, outcome: Outcome, dataset: Dataset, history: list[dict[str, float]], config: Config) -> None:
    """The pictures of a run, those of an ensemble too."""
    table, y = dataset.table, np.asarray(dataset.test.y)
    figures = {"curves": plot.curves(history)} if np.isfinite([record["loss"] for record in history]).any() else {}
    if outcome.scores is not None:
        figures |= _of_the_test(outcome, table, y, config)
    for name, figure in figures.items():
        write_file(path / f"{name}.png", plot.png(figure))


def _of_the_test(outcome: Outcome, table: Table, y: np.ndarray, config: Config) -> dict[str, Any]:
    """The pictures of what was predicted."""
    assert outcome.scores is not None
    figures = {}
    if table.task == "classification":
        figures["confusion"] = plot.confusion(outcome.prediction, y, table.classes)
        figures["reliability"] = plot.reliability(outcome.prediction, y)
    else:
        true, predicted = (v[:, 0] * table.target_std + table.target_mean for v in (y, outcome.prediction))
        figures["predictions"] = plot.predictions(predicted, true, table.target)
    if outcome.members is not None and outcome.outputs is not None and len(outcome.outputs) > 1:
        score, name = ("accuracy", "test accuracy") if table.task == "classification" else ("r2", "test R²")
        each = np.array([scores[score] for i, scores in enumerate(outcome.members) if i not in outcome.left_out])
        figures["spread"] = plot.spread(each, outcome.scores[score], name)
        if table.task == "classification":
            logits, labels = jnp.asarray(outcome.outputs), jnp.asarray(y)
            sizes = uncertainty.ensemble_size_curve(logits, labels, jax.random.key(config.seed))
            figures["ensemble_size"] = plot.ensemble_size(sizes)
            right = jnp.asarray(outcome.prediction.argmax(-1) == y)
            dropped, accuracy = uncertainty.rejection_curve(right, uncertainty.entropy_decomposition(logits).total)
            figures["rejection"] = plot.rejection(np.asarray(dropped), np.asarray(accuracy))
    return figures


def by_member(history: list[dict[str, Any]], stopped: np.ndarray) -> list[dict[str, Any]]:
    """The records of an ensemble, one for each member and epoch; those of a member end where it does."""
    rows = []
    for member, ended in enumerate(stopped):
        for record in history:
            own = {k: float(v[member]) if isinstance(v, np.ndarray) else v for k, v in record.items()}
            if not (ended and np.isnan(own["loss"])):
                rows.append({"member": member, **own})
    return rows


def means(history: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The records with each number averaged over the members."""
    return [{k: mean(v) if isinstance(v, np.ndarray) else v for k, v in record.items()} for record in history]


def _state(params: PyTree, state: PyTree) -> TrainState:
    """A network as the state of a run, of which prediction reads no more."""
    return TrainState(jnp.zeros((), jnp.int32), params, state, (), jax.random.key(0))


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (f", … ({len(numbers)} in all)" if len(numbers) > 10 else "")


def _scores(run: Run, prediction: Any, data: Data) -> dict[str, Any]:
    """What `run.evaluate` gives for a network that predicts this."""
    loss = metrics.weighted_mean(run.loss(prediction, data.y), data.weights)
    return {"loss": loss} | {metric_name(f): f(prediction, data.y, data.weights) for f in run.metrics}
