"""Compute reference results in float64 with NumPy. All peers are checked against them before they are timed."""

from collections.abc import Sequence

import numpy as np

from benchmarks.jobs.definitions import Dispatch, Ensemble, Shuffle, Training, Updates
from benchmarks.jobs.inputs import Inputs, Layers, update_inputs
from benchmarks.jobs.reference_lenet import convolve

ALLOWED = 1e-3  # allowed error relative to the distance from the start; wrong rules, orders or losses exceed 1e-2
CHECKED_MEMBERS = 8  # number of evenly spaced members of an ensemble that are checked
LARGEST_RATE = 1e-2  # members with a larger learning rate are not checked
B1, B2, EPS = 0.9, 0.999, 1e-8
LION_B1, LION_B2 = 0.9, 0.99


def training_error(job: Training, inputs: Inputs, rows: np.ndarray | None, params: Sequence[np.ndarray]) -> float:
    """Return the error of a peer's parameters relative to the distance from the start, as a multiple of `ALLOWED`.

    Args:
      job: the job.
      inputs: the initial parameters and the examples.
      rows: the row indices of each batch in the peer's order, (steps, batch); None means full-batch steps.
      params: the peer's parameters after the first call: w and b of each layer, in order.

    Raises:
      ValueError: if `rows` does not cover whole epochs, or if the shapes differ.
    """
    if rows is not None and (np.bincount(rows.ravel(), minlength=job.rows) != job.epochs).any():
        raise ValueError("every row must be seen once in an epoch")
    start = [array for layer in inputs.layers for array in layer]
    end = [array for layer in train(job, inputs, rows) for array in layer]
    if [array.shape for array in params] != [array.shape for array in end]:
        raise ValueError(f"got shapes {[array.shape for array in params]}, expected {[array.shape for array in end]}")
    return relative_error(start, end, params)


def ensemble_error(job: Ensemble, inputs: Inputs, rows: np.ndarray, params: Sequence[np.ndarray]) -> float:
    """Return the largest error among at most `CHECKED_MEMBERS` members; see `training_error`.

    Args:
      job: the job.
      inputs: the initial parameters with a leading members axis, and the examples.
      rows: the row indices of each member's batches, (members, steps, batch).
      params: w and b of each layer, in order, each with shape (members, ...).
    """
    errors = []
    for i in _checked_members(job):
        x, y = (inputs.x[i], inputs.y[i]) if job.own_data else (inputs.x, inputs.y)
        member_inputs = Inputs([(w[i], b[i]) for w, b in inputs.layers], x, y)
        rate, decay = job.pairs[i] if job.pairs else (job.training.rate, job.training.decay)
        member_job = job.training._replace(rate=rate, decay=decay)
        errors.append(training_error(member_job, member_inputs, rows[i], [array[i] for array in params]))
    return max(errors)


def _checked_members(job: Ensemble) -> np.ndarray:
    """Choose members with a moderate learning rate, because large learning rates amplify rounding errors."""
    stable = [i for i in range(job.members) if not job.pairs or job.pairs[i][0] <= LARGEST_RATE]
    return np.asarray(stable)[np.unique(np.linspace(0, len(stable) - 1, CHECKED_MEMBERS, dtype=int))]


def update_error(job: Updates, leaves: Sequence[np.ndarray]) -> float:
    """Return the error of the parameter arrays after one call; see `relative_error`."""
    params, both_grads = (np.stack(arrays).astype(np.float64) for arrays in update_inputs(job))
    start, m, v = params, np.zeros_like(params), np.zeros_like(params)
    decay = job.decay if job.rule == "adamw" else 0.0
    for t in range(1, job.steps + 1):
        grads = both_grads[:, (t - 1) % 2]
        if job.rule == "sgd":
            update = grads
        elif job.rule == "lion":
            update = np.sign(LION_B1 * m + (1 - LION_B1) * grads)
            m = LION_B2 * m + (1 - LION_B2) * grads
        else:
            m, v = B1 * m + (1 - B1) * grads, B2 * v + (1 - B2) * grads**2
            update = (m / (1 - B1**t)) / (np.sqrt(v / (1 - B2**t)) + EPS)
        params = params - job.rate * (update + decay * params)
    return relative_error([start], [params], [np.stack(list(leaves))])


def shuffle_error(job: Shuffle, rows: np.ndarray) -> float:
    """Return 0 if the row indices (steps, batch) contain each row once in shuffled order, else infinity."""
    once = (np.bincount(rows.ravel(), minlength=job.rows) == 1).all()
    neighbours = np.mean(np.diff(rows.ravel().astype(np.int64)) == 1)
    return 0.0 if once and neighbours < 0.01 else np.inf


def dispatch_error(job: Dispatch, arrays: Sequence[np.ndarray]) -> float:
    """Return 0 if every call added 1 to every element, which is exact in float32, else infinity."""
    correct = len(arrays) == job.leaves and all((array == job.calls).all() for array in arrays)
    return 0.0 if correct and sum(array.size for array in arrays) == job.leaves * job.size else np.inf


def relative_error(start: Sequence[np.ndarray], end: Sequence[np.ndarray], params: Sequence[np.ndarray]) -> float:
    """Return the largest error over the arrays, median |params - end| / median |end - start|, divided by `ALLOWED`.

    Medians are used because rounding may switch a unit on or off, which changes a few numbers a lot. Only elements that
    should change count. The error is infinite if it would be NaN or if an array changes that should stay equal.
    """
    errors = []
    for actual, expected, before in zip(params, end, start, strict=True):
        moves = expected != before  # False for weights of units that no example activates
        if moves.any():
            travelled = np.median(np.abs(expected - before)[moves])
            errors.append(np.median(np.abs(actual - expected)[moves]) / travelled)
        elif (actual != expected).any():
            errors.append(np.inf)
    return float(max(errors) / ALLOWED) if np.isfinite(errors).all() else np.inf


def train(job: Training, inputs: Inputs, rows: np.ndarray | None) -> Layers:
    """Return the parameters after the steps of one call, with the peer's order of rows (steps, batch)."""
    layers = [(w.astype(np.float64), b.astype(np.float64)) for w, b in inputs.layers]
    x, y = inputs.x.astype(np.float64), inputs.y
    params = [array for layer in layers for array in layer]
    mean, square = [np.zeros_like(p) for p in params], [np.zeros_like(p) for p in params]
    for t in range(1, job.steps + 1):
        batch = slice(None) if rows is None else rows[t - 1]
        grads = _gradient(job, params, x[batch], y[batch])
        for p, g, m, v in zip(params, grads, mean, square, strict=True):
            m[:] += (1 - B1) * (g - m)
            v[:] += (1 - B2) * (g * g - v)
            p[:] -= job.rate * ((m / (1 - B1**t)) / (np.sqrt(v / (1 - B2**t)) + EPS) + job.decay * p)
    return list(zip(params[::2], params[1::2], strict=True))


def _gradient(job: Training, params: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    if not job.images:
        return _dense_gradient(job, params, x, y)[0]
    features, backward = convolve(params[:4], x)
    grads, delta = _dense_gradient(job, params[4:], features, y)
    return [*backward(delta), *grads]


def _dense_gradient(
    job: Training, params: list[np.ndarray], x: np.ndarray, y: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the gradients with respect to the parameters and to x."""
    inputs, last = [x], len(params) // 2 - 1
    for i, (w, b) in enumerate(zip(params[::2], params[1::2], strict=True)):
        z = inputs[-1] @ w + b
        inputs.append(z if i == last else np.maximum(z, 0) if job.activation == "relu" else np.tanh(z))
    delta = _loss_gradient(job, inputs[-1], y) / len(x)
    grads: list[np.ndarray] = []
    for i in range(last, -1, -1):
        grads = [inputs[i].T @ delta, delta.sum(0), *grads]
        delta = delta @ params[2 * i].T
        if i:
            delta *= inputs[i] > 0 if job.activation == "relu" else 1 - inputs[i] ** 2
    return grads, delta


def _loss_gradient(job: Training, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    if job.loss == "squared_error":
        return 2 * (z - y)
    probabilities = np.exp(z - z.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    probabilities[np.arange(len(y)), y] -= 1
    return probabilities
