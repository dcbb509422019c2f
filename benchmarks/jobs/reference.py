"""The same work in float64 with NumPy alone, against which every peer is checked before it is timed."""

from collections.abc import Sequence

import numpy as np

from benchmarks.jobs.definitions import Ensemble, Inputs, Layers, Optimizing, Shuffling, Training, optimizing_inputs
from benchmarks.jobs.reference_lenet import convolved

ALLOWED = 1e-3  # of the way from start to end; a wrong rule, order or loss is off by .01 and more
LOOKED_AT = 8  # members of an ensemble, from the first to the last
LARGEST_RATE = 1e-2  # of the members that are looked at
B1, B2, EPS = 0.9, 0.999, 1e-8
LION_B1, LION_B2 = 0.9, 0.99


def training_error(job: Training, inputs: Inputs, rows: np.ndarray | None, found: Sequence[np.ndarray]) -> float:
    """How far a peer's parameters are from where float64 arrives, as a share of the way there; over what is allowed.

    Args:
      job: what was done.
      inputs: from where it started.
      rows: (steps, batch), which the peer took in this order; None for all of them in each step.
      found: the peer's w and b of each layer in turn.

    Raises:
      ValueError: where rows are not whole epochs, or the shapes are others.
    """
    if rows is not None and (np.bincount(rows.ravel(), minlength=job.rows) != job.epochs).any():
        raise ValueError("every row must be seen once in an epoch")
    start = [part for layer in inputs.layers for part in layer]
    end = [part for layer in train(job, inputs, rows) for part in layer]
    if [part.shape for part in found] != [part.shape for part in end]:
        raise ValueError(f"shapes {[part.shape for part in found]}, expected {[part.shape for part in end]}")
    return share_of_way(start, end, found)


def ensemble_error(job: Ensemble, inputs: Inputs, rows: np.ndarray, found: Sequence[np.ndarray]) -> float:
    """The largest error of `LOOKED_AT` members.

    Args:
      job: what was done.
      inputs: from where it started, with an axis of members.
      rows: (members, steps, batch), which each member took.
      found: w and b of each layer in turn, each (members, ...).
    """
    errors = []
    for i in _looked_at(job):
        x, y = (inputs.x[i], inputs.y[i]) if job.own else (inputs.x, inputs.y)
        mine = Inputs([(w[i], b[i]) for w, b in inputs.layers], x, y)
        rate, decay = job.pairs[i] if job.pairs else (job.training.rate, job.training.decay)
        each = job.training._replace(rate=rate, decay=decay)
        errors.append(training_error(each, mine, rows[i], [array[i] for array in found]))
    return max(errors)


def _looked_at(job: Ensemble) -> np.ndarray:
    """Members from the first to the last; at a large rate steps amplify what rounding does, and nothing can be said."""
    tame = [i for i in range(job.members) if not job.pairs or job.pairs[i][0] <= LARGEST_RATE]
    return np.asarray(tame)[np.unique(np.linspace(0, len(tame) - 1, LOOKED_AT, dtype=int))]


def optimizing_error(job: Optimizing, found: Sequence[np.ndarray]) -> float:
    """How far the parameters of all leaves are from where float64 arrives after one call."""
    params, both = (np.stack(arrays).astype(np.float64) for arrays in optimizing_inputs(job))
    start, m, v = params, np.zeros_like(params), np.zeros_like(params)
    decay = job.decay if job.rule == "adamw" else 0.0
    for t in range(1, job.steps + 1):
        grads = both[:, (t - 1) % 2]
        if job.rule == "sgd":
            update = grads
        elif job.rule == "lion":
            update = np.sign(LION_B1 * m + (1 - LION_B1) * grads)
            m = LION_B2 * m + (1 - LION_B2) * grads
        else:
            m, v = B1 * m + (1 - B1) * grads, B2 * v + (1 - B2) * grads**2
            update = (m / (1 - B1**t)) / (np.sqrt(v / (1 - B2**t)) + EPS)
        params = params - job.rate * (update + decay * params)
    return share_of_way([start], [params], [np.stack(list(found))])


def shuffling_error(job: Shuffling, rows: np.ndarray) -> float:
    """0 where the rows (steps, batch) are every example once, and in no order that is easily seen."""
    once = (np.bincount(rows.ravel(), minlength=job.rows) == 1).all()
    neighbours = np.mean(np.diff(rows.ravel().astype(np.int64)) == 1)
    return 0.0 if once and neighbours < 0.01 else np.inf


def share_of_way(start: Sequence[np.ndarray], end: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    """The median of what moves in an array: where rounding turns a unit on or off it moves that unit's numbers far.

    Infinite for what is not a number, and where something moved in an array in which nothing should.
    """
    off = []
    for a, b, c in zip(found, end, start, strict=True):
        moves = b != c  # behind a unit that no example turns on nothing does
        if moves.any():
            off.append(np.median(np.abs(a - b)[moves]) / np.median(np.abs(c - b)[moves]))
        elif (a != b).any():
            off.append(np.inf)
    return float(max(off) / ALLOWED) if np.isfinite(off).all() else np.inf


def train(job: Training, inputs: Inputs, rows: np.ndarray | None) -> Layers:
    """Parameters after the steps of one call."""
    layers = [(w.astype(np.float64), b.astype(np.float64)) for w, b in inputs.layers]
    x, y = inputs.x.astype(np.float64), inputs.y
    params = [part for layer in layers for part in layer]
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
    features, back = convolved(params[:4], x)
    grads, delta = _dense_gradient(job, params[4:], features, y)
    return [*back(delta), *grads]


def _dense_gradient(
    job: Training, params: list[np.ndarray], x: np.ndarray, y: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Of the parameters, and of x."""
    inputs, last = [x], len(params) // 2 - 1
    for i, (w, b) in enumerate(zip(params[::2], params[1::2], strict=True)):
        z = inputs[-1] @ w + b
        inputs.append(z if i == last else np.maximum(z, 0) if job.activation == "relu" else np.tanh(z))
    delta = _loss_slope(job, inputs[-1], y) / len(x)
    grads: list[np.ndarray] = []
    for i in range(last, -1, -1):
        grads = [inputs[i].T @ delta, delta.sum(0), *grads]
        delta = delta @ params[2 * i].T
        if i:
            delta *= inputs[i] > 0 if job.activation == "relu" else 1 - inputs[i] ** 2
    return grads, delta


def _loss_slope(job: Training, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    if job.loss == "squared_error":
        return 2 * (z - y)
    probabilities = np.exp(z - z.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    probabilities[np.arange(len(y)), y] -= 1
    return probabilities
