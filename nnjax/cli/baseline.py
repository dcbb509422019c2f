"""Compute the scores of a constant prediction as a baseline, and the scores of each class."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from nnjax import metrics
from nnjax.data.table import Table
from nnjax.types import Data


class Baseline(NamedTuple):
    """The scores of the best constant prediction."""

    prediction: str  # "always the mean", or "always" and the most frequent class of the training rows
    scores: dict[str, float]  # accuracy, or r2 and rmse (in the units of the target; for several, standardised)


class ClassScores(NamedTuple):
    """The scores of a classifier by class."""

    recall: dict[str, float]  # recall of each class on the test rows; classes without test rows are omitted
    rows: dict[str, int]  # number of test rows of each class in `recall`
    balanced_accuracy: float  # mean recall over the classes with test rows
    auc: float | None  # area under the ROC curve; None unless there are two classes, both with test rows
    never: list[str]  # classes with test rows that are never predicted


def baseline(table: Table, training: Data, test: Data) -> Baseline:
    """Return the constant prediction that fits the training rows best, with its test scores."""
    fitted, y = np.asarray(training.y), np.asarray(test.y)
    if table.task == "classification":
        most = int(np.bincount(fitted).argmax())
        return Baseline(f"always {table.classes[most]!r}", {"accuracy": float((y == most).mean())})
    errors, variance = ((y - fitted.mean(0)) ** 2).mean(0), y.var(0)
    r2 = [1 - float(e / v) if v > 0 else float("nan") for e, v in zip(errors, variance, strict=True)]
    scores = {"r2": float(np.mean(r2)), "rmse": float(np.sqrt(errors.mean())) * table.target_std}
    if table.several is not None:
        scores |= {f"r2({name})": value for name, value in zip(table.target_names, r2, strict=True)}
    return Baseline("always the mean", scores)


def class_scores(table: Table, prediction: np.ndarray, test: Data) -> ClassScores:
    """Compute the per-class scores from the logits (n, classes) of the test rows."""
    y, predicted = np.asarray(test.y), prediction.argmax(1)
    rows = np.bincount(y, minlength=len(table.classes))
    right = np.bincount(y[predicted == y], minlength=len(table.classes))
    recall = {name: float(right[i] / rows[i]) for i, name in enumerate(table.classes) if rows[i]}
    counts = {name: int(rows[i]) for i, name in enumerate(table.classes) if rows[i]}
    auc = None
    if len(table.classes) == 2 and rows.all():
        auc = float(metrics.roc_auc(jnp.asarray(prediction[:, 1] - prediction[:, 0]), jnp.asarray(y)))
    predicted_counts = np.bincount(predicted, minlength=len(table.classes))
    never = [name for i, name in enumerate(table.classes) if rows[i] and not predicted_counts[i]]
    return ClassScores(recall, counts, float(np.mean(list(recall.values()))), auc, never)
