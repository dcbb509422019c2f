"""Evaluate a trained network or ensemble on the test data."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnjax import metrics, uncertainty
from nnjax.cli.config import REGRESSION_METRICS, Config
from nnjax.cli.history import in_target_units
from nnjax.cli.prepare import Prepared
from nnjax.data.table import Table
from nnjax.train import Result
from nnjax.train.run import Run, metric_name
from nnjax.types import Data, PyTree

Scores = dict[str, float]


class Outcome(NamedTuple):
    """A trained network or ensemble with its predictions and scores on the test data."""

    params: PyTree  # params and state of an ensemble have a leading axis (members, ...)
    state: PyTree
    scores: Scores | None  # None if the training diverged
    prediction: np.ndarray  # (n, outputs), averaged over an ensemble; logits for classification
    member_scores: list[Scores] | None = None  # None if there is a single network
    left_out: Sequence[int] = ()  # members that diverged; their scores are NaN, and they are not averaged
    member_outputs: np.ndarray | None = None  # (members, n, outputs), without members that diverged
    uncertainty: Mapping[str, float] = {}  # means over rows: total, aleatoric and epistemic (nats), or sd


def evaluate(config: Config, prepared: Prepared, result: Result) -> Outcome:
    """Predict the test data with the trained network or ensemble, and score the prediction.

    With `patience`, use the network with the lowest validation loss; otherwise, the network after the last step.
    """
    run, data, table = prepared.run, prepared.dataset.test, prepared.dataset.table
    if table.task == "regression":
        run = replace(run, metrics=REGRESSION_METRICS)  # `prepare` removes R² if it is undefined in validation
    diverged = result.diverged >= 0
    network: Any = result.ts
    if config.patience is not None and result.best is not None:
        network = result.best
        # No network was kept if the validation loss was never finite
        diverged = diverged & ~np.isfinite(np.asarray(network.score))
    params, state = jax.tree.map(np.asarray, (network.params, network.state))
    outputs = predict(run, params, state, data.x, members=config.members)
    usable = ~np.atleast_1d(diverged) & np.isfinite(outputs).all((1, 2))
    score = jax.jit(lambda prediction: score_prediction(run, prediction, data))

    def scores_of(prediction: Any) -> Scores:
        return with_target_scores(score(prediction), table, prediction, data)

    if config.members is None:
        return Outcome(params, state, scores=scores_of(outputs[0]) if usable[0] else None, prediction=outputs[0])
    members = [scores_of(prediction) for prediction in outputs]
    left_out = np.flatnonzero(~usable).tolist()
    for member in left_out:  # otherwise, NaN outputs would have a finite accuracy
        members[member] = dict.fromkeys(members[member], float("nan"))
    outcome = Outcome(params, state, None, outputs[0], member_scores=members, left_out=left_out)
    if not usable.any():
        return outcome
    outputs = outputs[usable]
    prediction, parts = average(jnp.asarray(outputs), table)
    return outcome._replace(
        scores=scores_of(prediction),
        prediction=prediction,
        member_outputs=outputs,
        uncertainty={name: float(np.mean(value)) for name, value in parts.items()},
    )


def predict(run: Run, params: PyTree, state: PyTree, x: Any, *, members: int | None) -> np.ndarray:
    """Return the outputs of each member as an array (members, n, outputs); a single network counts as one member."""
    if members is None:
        params, state = jax.tree.map(lambda a: a[None], (params, state))
    return np.asarray(_outputs(run, params, state, x))


@partial(jax.jit, static_argnums=0)
def _outputs(run: Run, params: PyTree, state: PyTree, x: Any) -> Any:
    return lax.map(lambda network: run.predict(network[0], network[1], x), (params, state))


def mean_output(outputs: jax.Array, table: Table) -> np.ndarray:
    """Average the outputs (members, n, outputs) of an ensemble, or the probabilities of classes.

    Returns:
      The prediction (n, outputs), as logits for classification.
    """
    classify = table.task == "classification"
    return np.asarray(uncertainty.log_mean_probabilities(outputs) if classify else outputs.mean(0))


def average(outputs: jax.Array, table: Table) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Average the outputs of an ensemble, and estimate the uncertainty of the average.

    Args:
      outputs: the outputs of each member, (members, n, outputs).
      table: the encoding of the data set, which contains the task and the scale of the target.

    Returns:
      The prediction (n, outputs), as logits for classification, and arrays of uncertainty (n,), keyed by name. For
      classification, these are total, aleatoric and epistemic in nats. For regression, it is sd in the units of the
      target, with shape (n, targets) if there are several targets.
    """
    if table.task == "regression":
        sd = np.asarray(jnp.sqrt(uncertainty.variance_decomposition(outputs).epistemic))
        if table.several is not None:
            return mean_output(outputs, table), {"sd": sd * np.array([target.std for target in table.several])}
        return mean_output(outputs, table), {"sd": sd[:, 0] * table.target_std}
    parts = uncertainty.entropy_decomposition(outputs)._asdict()
    return mean_output(outputs, table), {k: np.asarray(v) for k, v in parts.items()}


def with_target_scores(scores: Mapping[str, Any], table: Table, prediction: Any, data: Data) -> Scores:
    """Convert the scores to the units of the target; for several targets, add R² and RMSE of each, such as "r2(a)"."""
    converted = in_target_units({name: float(value) for name, value in scores.items()}, table.target_std)
    if table.several is None:
        return converted
    by_target = target_scores(table, np.asarray(prediction), np.asarray(data.y))
    return converted | {f"{metric}({name})": v for name, target in by_target.items() for metric, v in target.items()}


def target_scores(table: Table, prediction: np.ndarray, y: np.ndarray) -> dict[str, Scores]:
    """Return R² and, in the units of the target, the root mean squared error of each target.

    Args:
      table: the encoding of a regression.
      prediction: standardised predictions (n, targets).
      y: standardised targets (n, targets).
    """
    stds = [table.target_std] if table.several is None else [target.std for target in table.several]
    scores = {}
    for i, (name, std) in enumerate(zip(table.target_names, stds, strict=True)):
        pair = jnp.asarray(prediction[:, i]), jnp.asarray(y[:, i])
        r2 = float(metrics.r2(*pair)) if np.ptp(y[:, i]) > 0 else float("nan")
        scores[name] = {"r2": r2, "rmse": float(metrics.rmse(*pair)) * std}
    return scores


def score_prediction(run: Run, prediction: Any, data: Data) -> dict[str, Any]:
    """Return the loss and the metrics of a prediction, as `run.evaluate` does for a network."""
    assert run.loss is not None
    loss = metrics.weighted_mean(run.loss(prediction, data.y), data.weights)
    return {"loss": loss} | {metric_name(f): f(prediction, data.y, data.weights) for f in run.metrics}
