"""Compute LeNet's convolutions and their gradients in float64 with NumPy, as a reference."""

from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.jobs.inputs import FEATURES, PADDINGS

Backward = Callable[[np.ndarray], list[np.ndarray]]


def convolve(params: Sequence[np.ndarray], x: np.ndarray) -> tuple[np.ndarray, Backward]:
    """Apply convolution, relu and 2 × 2 max pooling twice, then flatten.

    Args:
      params: w (height, width, inputs, outputs) and b (outputs,) of both convolutions.
      x: images, (batch, height, width, channels).

    Returns:
      The features (batch, features), and a function that maps their gradient to the gradients of `params`.
    """
    windows, outputs, maxima = [], [], []
    for w, b, padding in zip(params[::2], params[1::2], PADDINGS, strict=True):
        windows.append(_windows(x, w, padding))
        outputs.append(np.einsum("nhwcij,ijco->nhwo", windows[-1], w, optimize=True) + b)
        x, is_maximum = _max_pool(np.maximum(outputs[-1], 0))
        maxima.append(is_maximum)

    def backward(delta: np.ndarray) -> list[np.ndarray]:
        grads: list[np.ndarray] = []
        delta = delta.reshape(x.shape)
        for i in (1, 0):
            w = params[2 * i]
            delta = np.repeat(np.repeat(delta, 2, 1), 2, 2) * maxima[i] * (outputs[i] > 0)
            grads = [np.einsum("nhwcij,nhwo->ijco", windows[i], delta, optimize=True), delta.sum((0, 1, 2)), *grads]
            if i:  # convolve with the flipped kernel to get the gradient of the input
                flipped = w[::-1, ::-1].swapaxes(2, 3)
                delta_windows = _windows(delta, flipped, w.shape[0] - 1 - PADDINGS[i])
                delta = np.einsum("nhwoij,ijoc->nhwc", delta_windows, flipped, optimize=True)
        return grads

    return x.reshape(-1, FEATURES), backward


def _windows(x: np.ndarray, w: np.ndarray, padding: int) -> np.ndarray:
    """Return a view of all windows, (batch, height, width, channels, kernel height, kernel width)."""
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, w.shape[:2], (1, 2))


def _max_pool(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the maxima and a mask of their positions. After relu, ties occur only at 0, where the gradient is 0."""
    n, height, width, channels = x.shape
    y = x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))
    return y, np.repeat(np.repeat(y, 2, 1), 2, 2) == x
