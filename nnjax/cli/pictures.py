"""The pictures of a run folder."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import plot, uncertainty
from nnjax.cli.config import Config
from nnjax.cli.evaluation import Outcome
from nnjax.data import Dataset
from nnjax.data.table import Table
from nnjax.storage.atomic_write import write_file


def draw(path: Path, outcome: Outcome, dataset: Dataset, history: list[dict[str, float]], config: Config) -> None:
    """Draw the learning curves, the predictions and the ensemble, and skip what the run does not have."""
    figures = {"curves": plot.curves(history)} if np.isfinite([record["loss"] for record in history]).any() else {}
    if outcome.scores is not None:
        y = np.asarray(dataset.test.y)
        figures |= _predictions(outcome.prediction, y, dataset.table)
        if outcome.member_outputs is not None and len(outcome.member_outputs) > 1:
            figures |= _ensemble(outcome, y, dataset.table, config.seed)
    for name, figure in figures.items():
        write_file(path / f"{name}.png", plot.png(figure))


def _predictions(prediction: np.ndarray, y: np.ndarray, table: Table) -> dict[str, Any]:
    if table.task == "classification":
        return {
            "confusion": plot.confusion(prediction, y, table.classes),
            "reliability": plot.reliability(prediction, y),
        }
    true, predicted = (v[:, 0] * table.target_std + table.target_mean for v in (y, prediction))
    return {"predictions": plot.predictions(predicted, true, table.target)}


def _ensemble(outcome: Outcome, y: np.ndarray, table: Table, seed: int) -> dict[str, Any]:
    assert outcome.scores is not None
    assert outcome.member_scores is not None
    name, label = ("accuracy", "test accuracy") if table.task == "classification" else ("r2", "test R²")
    members = [scores[name] for i, scores in enumerate(outcome.member_scores) if i not in outcome.left_out]
    figures = {"spread": plot.spread(np.array(members), outcome.scores[name], label)}
    if table.task == "regression":
        return figures
    logits, labels = jnp.asarray(outcome.member_outputs), jnp.asarray(y)
    sizes = uncertainty.ensemble_size_curve(logits, labels, jax.random.key(seed))
    correct = jnp.asarray(outcome.prediction.argmax(-1) == y)
    rejected, accuracy = uncertainty.rejection_curve(correct, uncertainty.entropy_decomposition(logits).total)
    return figures | {
        "ensemble_size": plot.ensemble_size(sizes),
        "rejection": plot.rejection(np.asarray(rejected), np.asarray(accuracy)),
    }
