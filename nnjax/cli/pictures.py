"""Draw the pictures of a run."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import nn, plot, uncertainty
from nnjax.cli.config import LEARNING_RATES, Config
from nnjax.cli.evaluation import Outcome, mean_output, predict
from nnjax.cli.images import image_shape, pixels
from nnjax.cli.importance import permutation_importance
from nnjax.cli.prepare import Prepared
from nnjax.data._load import NAMES
from nnjax.storage.atomic_write import write_file

LEAST_FOR_RELIABILITY = 200  # minimum number of test rows; with fewer, the bins are too noisy
LEAST_FOR_IMPORTANCE = 20  # minimum number of test rows
MOST_COLOURS = 10  # maximum number of classes in a picture of decision regions


class Subject(NamedTuple):
    """The settings, data and results of a run that its pictures show."""

    config: Config
    prepared: Prepared
    outcome: Outcome
    history: Sequence[Mapping[str, Any]]  # records of numbers, or of arrays (members,), in the units of the target
    summary: Mapping[str, Any]  # the content of result.json


def draw(path: Path, subject: Subject) -> dict[str, bytes]:
    """Draw all pictures that apply to the run, write them as PNG files, and return them, keyed by name.

    For a run that diverged, only the learning curves are drawn, and only if at least one loss is finite.
    """
    pictures = {}
    for name, figure in _pictures(subject):
        pictures[name] = plot.png(figure)
        write_file(path / f"{name}.png", pictures[name])
    return pictures


def describe(config: Config, scores: Mapping[str, float | None] | None = None, *, omit: Collection[str] = ()) -> str:
    """Summarise the data, the settings and the test score, for the second line of every title.

    Args:
      config: the settings.
      scores: the test scores; None to omit them.
      omit: names of settings to omit, such as those that are swept.
    """
    name = config.data if config.data in NAMES else Path(config.data).name
    rate = LEARNING_RATES[config.optimizer] if config.learning_rate is None else config.learning_rate
    parts = {
        "data": name + (f" → {re.sub(', *', ', ', config.target)}" if config.target else ""),
        "network": _network(config, omit) if config.depth else "linear",
        "skip": "with skips" if config.skip else "",
        "norm": "" if config.norm in (None, "none") else f"{config.norm} norm",
        "dropout": f"dropout {config.dropout:g}" if config.dropout and "dropout" not in omit else "",
        "optimizer": config.optimizer + ("" if "learning_rate" in omit else f" {rate:g}"),
        "batch": f"batch {config.batch_size}",
        "epochs": "" if config.epochs is None else f"{config.epochs:g} epochs",
        "patience": _patience(config),
        "seed": f"seed {config.seed}",
        "members": "" if config.members is None else f"{config.members} members",
    }
    changing = {"depth": "network", "norm": "norm", "optimizer": "optimizer", "batch_size": "batch"}
    parts |= {part: "" for name, part in changing.items() if name in omit}
    parts["score"] = main_score(scores or {})
    space = "\N{NO-BREAK SPACE}"  # allows line breaks only between the parts
    return f"{space}· ".join(part if len(part) > 30 else part.replace(" ", space) for part in parts.values() if part)


def _network(config: Config, omit: Collection[str]) -> str:
    activation = "" if "activation" in omit else config.activation or ""
    if "width" in omit:
        layers = "1 hidden layer" if config.depth == 1 else f"{config.depth} hidden layers"
        return f"{layers}, {activation}" if activation else layers
    return f"{config.depth} × {config.width} {activation}".strip()


def main_score(scores: Mapping[str, float | None]) -> str:
    """Return the test accuracy or the test R² as a labelled number, or "" if both are unknown.

    >>> from nnjax.cli.pictures import main_score
    >>> main_score({"loss": 0.1, "accuracy": 0.975})
    'test accuracy 0.9750'
    """
    for name, label in (("accuracy", "test accuracy"), ("r2", "test R²")):
        value = scores.get(name)
        if value is not None and np.isfinite(value):
            return f"{label} {value:.4f}"
    return ""


def _patience(config: Config) -> str:
    if config.patience is None:
        return ""
    never = config.epochs is not None and config.patience >= config.epochs
    return "best epoch kept" if never else f"patience {config.patience}"


def _pictures(subject: Subject) -> Iterator[tuple[str, Any]]:
    """Yield the name and the figure of each picture of a run, in the order of the report."""
    config, prepared, outcome, history, summary = subject
    context = describe(config, outcome.scores)
    if any(np.isfinite(record["loss"]).any() for record in history):
        best = _best_epochs(history, summary)
        yield "curves", plot.curves(history, best_epoch=best, training=_training(config), context=context)
    if outcome.scores is None:
        return
    classify = prepared.dataset.table.task == "classification"
    yield from _classification(subject, context) if classify else _regression(subject, context)
    if outcome.member_outputs is not None and len(outcome.member_outputs) > 1:
        yield from _ensemble(subject, context)


def _best_epochs(history: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Any:
    """Return the epoch of the saved network (for an ensemble, a list with one epoch per member).

    Return None if the run had no early stopping.
    """
    epochs = {int(np.max(record["step"])): float(record["epoch"]) for record in history}
    steps = [ending.get("best_step") for ending in summary.get("members", [summary])]
    if None in steps:
        return None
    best_epochs = [epochs.get(step, 0.0) for step in steps]
    return best_epochs if "members" in summary else best_epochs[0]


def _training(config: Config) -> str:
    """Describe how the training loss is measured, and why it is higher than in evaluation mode."""
    dropout = [f"dropout {config.dropout:g}"] if config.dropout else []
    batch = ["batch statistics"] if config.norm == "batch" else []
    raised = f"raised by {' and '.join([*dropout, *batch])}" if dropout or batch else "while the weights changed"
    weights = "; with class weights" if config.class_weights != "none" else ""
    return f"mean over the epoch, {raised}{weights}"


def _classification(subject: Subject, context: str) -> Iterator[tuple[str, Any]]:
    config, prepared, outcome, _, _ = subject
    table, logits = prepared.dataset.table, outcome.prediction
    x, labels = np.asarray(prepared.dataset.test.x), np.asarray(prepared.dataset.test.y)
    yield "confusion", plot.confusion(logits, labels, table.classes, context=context)
    if len(labels) >= LEAST_FOR_RELIABILITY:
        yield "reliability", plot.reliability(logits, labels, context=context)
    shape = image_shape(config, table)
    if shape is not None:
        images = pixels(x, shape, config, table)
        yield "uncertain", plot.uncertain(images, logits, labels, table.classes, context=context)
        if (logits.argmax(1) != labels).any():
            yield "mistakes", plot.mistakes(images, logits, labels, table.classes, context=context)
        if len(shape) == 2:
            yield from _first_layer(subject, shape, context)
        return
    numbers = [column for column in table.columns if column.kind == "number"]
    if len(numbers) == len(table.columns) == len(table.mean) == 2 and len(table.classes) <= MOST_COLOURS:
        yield "regions", _regions(subject, context)
    yield from _importance(subject, context)


def _regression(subject: Subject, context: str) -> Iterator[tuple[str, Any]]:
    config, prepared, outcome, _, _ = subject
    table, outputs = prepared.dataset.table, outcome.member_outputs
    assert outcome.scores is not None
    true, predicted = (table.in_units(np.asarray(v, float)) for v in (prepared.dataset.test.y, outcome.prediction))
    sds = table.in_units(outputs).std(0, ddof=1) if outputs is not None and len(outputs) > 1 else None
    if len(table.mean) == len(table.target_names) == 1 and table.columns[0].kind == "number":
        yield "function", _function(subject, context)
    surface = len(table.mean) == 2 and [column.kind for column in table.columns] == ["number", "number"]
    for i, name in enumerate(table.target_names):
        number, target_context = "", context
        if table.several is not None:  # show the score of this target, not the mean over the targets
            number = f"_{i + 1}"
            target_context = describe(replace(config, target=name), {"r2": outcome.scores[f"r2({name})"]})
        column = (predicted[:, i], true[:, i], name)
        sd = None if sds is None else sds[:, i]
        if surface:
            yield f"surface{number}", _surface(subject, i, target_context)
        yield f"predictions{number}", plot.predictions(*column, sd=sd, context=target_context)
        yield f"residuals{number}", plot.residuals(*column, context=target_context)
    yield from _importance(subject, context)


def _ensemble(subject: Subject, context: str) -> Iterator[tuple[str, Any]]:
    config, prepared, outcome, _, _ = subject
    assert outcome.scores is not None
    assert outcome.member_scores is not None
    classify = prepared.dataset.table.task == "classification"
    name, label = ("accuracy", "test accuracy") if classify else ("r2", "test R²")
    members = [scores[name] for i, scores in enumerate(outcome.member_scores) if i not in outcome.left_out]
    yield "spread", plot.spread(np.array(members, float), outcome.scores[name], label, context=context)
    if not classify:
        return
    logits, labels = jnp.asarray(outcome.member_outputs), jnp.asarray(prepared.dataset.test.y)
    sizes = uncertainty.ensemble_size_curve(logits, labels, jax.random.key(config.seed))
    yield "ensemble_size", plot.ensemble_size(sizes, context=context)
    correct = jnp.asarray(outcome.prediction.argmax(-1) == np.asarray(labels))
    curve = uncertainty.rejection_curve(correct, uncertainty.entropy_decomposition(logits).total)
    yield "rejection", plot.rejection(*map(np.asarray, curve), context=context)


def _predict(subject: Subject, x: np.ndarray) -> np.ndarray:
    """Return the prediction (n, outputs) for standardised features (n, features), averaged for an ensemble."""
    outputs = _predict_members(subject, x)
    return outputs[0] if len(outputs) == 1 else mean_output(jnp.asarray(outputs), subject.prepared.dataset.table)


def _predict_members(subject: Subject, x: np.ndarray) -> np.ndarray:
    """Return the outputs (members, n, outputs) of the members that did not diverge."""
    config, prepared, outcome, _, _ = subject
    features = np.asarray(x, np.float32)
    outputs = predict(prepared.run, outcome.params, outcome.state, features, members=config.members)
    return np.delete(outputs, outcome.left_out, axis=0)


def _first_layer(subject: Subject, shape: tuple[int, ...], context: str) -> Iterator[tuple[str, Any]]:
    """Draw the weights of the first dense layer, if there is one.

    For an ensemble, use the first member that did not diverge.
    """
    config, _, outcome, _, _ = subject
    params = outcome.params
    if config.members is not None:
        member = next(i for i in range(config.members) if i not in outcome.left_out)
        params, context = jax.tree.map(lambda a: a[member], params), f"{context} · member {member}"
    for weights in nn.paths(params).values():
        if np.ndim(weights) == 2 and len(weights) == np.prod(shape):
            yield "first_layer", plot.first_layer(np.asarray(weights), shape, context=context)
            return


def _regions(subject: Subject, context: str) -> Any:
    table, test = subject.prepared.dataset.table, subject.prepared.dataset.test
    mean, std = np.array(table.mean), np.array(table.std)

    def probabilities(x: np.ndarray) -> np.ndarray:
        return np.asarray(nn.softmax(jnp.asarray(_predict(subject, (x - mean) / std))))

    x = np.asarray(test.x) * std + mean
    names = [column.name for column in table.columns]
    return plot.regions(probabilities, x, np.asarray(test.y), table.classes, names, context=context)


def _function(subject: Subject, context: str) -> Any:
    table, test = subject.prepared.dataset.table, subject.prepared.dataset.test

    def predict_members(x: np.ndarray) -> np.ndarray:
        return table.in_units(_predict_members(subject, ((x - table.mean[0]) / table.std[0])[:, None]))[..., 0]

    x = np.asarray(test.x, float)[:, 0] * table.std[0] + table.mean[0]
    target = table.in_units(np.asarray(test.y, float))[:, 0]
    return plot.function(predict_members, x, target, table.columns[0].name, table.target, context=context)


def _surface(subject: Subject, target: int, context: str) -> Any:
    table, test = subject.prepared.dataset.table, subject.prepared.dataset.test
    mean, std = np.array(table.mean), np.array(table.std)
    x, y = np.asarray(test.x, float) * std + mean, table.in_units(np.asarray(test.y, float))[:, target]
    names = [column.name for column in table.columns]

    def predict_target(x: np.ndarray) -> np.ndarray:
        return table.in_units(_predict(subject, (x - mean) / std))[:, target]

    return plot.surface(predict_target, x, y, names, table.target_names[target], context=context)


def _importance(subject: Subject, context: str) -> Iterator[tuple[str, Any]]:
    """Draw the importance of the columns, unless there is one column or too few test rows."""
    test, table = subject.prepared.dataset.test, subject.prepared.dataset.table
    x, y = np.asarray(test.x), np.asarray(test.y)
    if len(table.columns) == 1 or len(x) < LEAST_FOR_IMPORTANCE:
        return
    weights = sum(leaf.size for leaf in jax.tree.leaves(subject.outcome.params))
    drops = permutation_importance(partial(_predict, subject), x, y, table, weights=weights, seed=subject.config.seed)
    yield "importance", plot.importance(*drops, context=context)
