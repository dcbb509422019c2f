"""The deep network in float64 with NumPy alone."""

import numpy as np

from benchmarks.jobs.definitions import Deepening, depth_inputs
from benchmarks.jobs.reference import share_of_way


def depth_error(job: Deepening, w: np.ndarray, b: np.ndarray) -> float:
    """How far a peer's parameters are from where float64 arrives after one call.

    Args:
      job: what was done.
      w: (blocks, width, width), as the peer found it.
      b: (blocks, width)
    """
    inputs = depth_inputs(job)
    start = list(inputs.layers[0])
    w64, b64 = (part.astype(np.float64) for part in start)
    x, y = inputs.x.astype(np.float64), inputs.y.astype(np.float64)
    for _ in range(job.steps):
        grad_w, grad_b = _gradient(w64, b64, x, y)
        w64, b64 = w64 - job.rate * grad_w, b64 - job.rate * grad_b
    return share_of_way(start, [w64, b64], [w, b])


def _gradient(w: np.ndarray, b: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inputs, outputs = [], []
    for each, bias in zip(w, b, strict=True):
        inputs.append(x)
        outputs.append(np.maximum(x @ each + bias, 0))
        x = x + outputs[-1]
    delta = 2 * (x - y) / len(x)
    grad_w, grad_b = np.empty_like(w), np.empty_like(b)
    for i in range(len(w) - 1, -1, -1):
        inner = delta * (outputs[i] > 0)
        grad_w[i], grad_b[i] = inputs[i].T @ inner, inner.sum(0)
        delta = delta + inner @ w[i].T
    return grad_w, grad_b
