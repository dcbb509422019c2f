"""Train the deep residual network in float64 with NumPy, as a reference."""

import numpy as np

from benchmarks.jobs.definitions import DeepNetwork
from benchmarks.jobs.inputs import deep_network_inputs
from benchmarks.jobs.reference import relative_error


def deep_network_error(job: DeepNetwork, w: np.ndarray, b: np.ndarray) -> float:
    """Return the error of a peer's parameters after one call; see `relative_error`.

    Args:
      job: the job.
      w: the peer's weights, (blocks, width, width).
      b: the peer's biases, (blocks, width).
    """
    inputs = deep_network_inputs(job)
    start = list(inputs.layers[0])
    w64, b64 = (array.astype(np.float64) for array in start)
    x, y = inputs.x.astype(np.float64), inputs.y.astype(np.float64)
    for _ in range(job.steps):
        grad_w, grad_b = _gradient(w64, b64, x, y)
        w64, b64 = w64 - job.rate * grad_w, b64 - job.rate * grad_b
    return relative_error(start, [w64, b64], [w, b])


def _gradient(w: np.ndarray, b: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inputs, outputs = [], []
    for weight, bias in zip(w, b, strict=True):
        inputs.append(x)
        outputs.append(np.maximum(x @ weight + bias, 0))
        x = x + outputs[-1]
    delta = 2 * (x - y) / len(x)
    grad_w, grad_b = np.empty_like(w), np.empty_like(b)
    for i in range(len(w) - 1, -1, -1):
        delta_out = delta * (outputs[i] > 0)
        grad_w[i], grad_b[i] = inputs[i].T @ delta_out, delta_out.sum(0)
        delta = delta + delta_out @ w[i].T
    return grad_w, grad_b
