"""LeNet's convolutions in float64 with NumPy alone, forward and backward."""

from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.jobs.definitions import FEATURES, PADDINGS

Back = Callable[[np.ndarray], list[np.ndarray]]


def convolved(params: Sequence[np.ndarray], x: np.ndarray) -> tuple[np.ndarray, Back]:
    """Twice convolution, relu and 2 × 2 maxima, then all features in a row.

    Args:
      params: w (height, width, inputs, outputs) and b (outputs,) of each.
      x: (batch, height, width, channels)

    Returns:
      Features (batch, features), and a function of their gradient that gives the gradients of `params`.
    """
    windows, outputs, maxima = [], [], []
    for w, b, padding in zip(params[::2], params[1::2], PADDINGS, strict=True):
        windows.append(_windows(x, w, padding))
        outputs.append(np.einsum("nhwcij,ijco->nhwo", windows[-1], w, optimize=True) + b)
        x, most = _pooled(np.maximum(outputs[-1], 0))
        maxima.append(most)

    def back(delta: np.ndarray) -> list[np.ndarray]:
        grads: list[np.ndarray] = []
        delta = delta.reshape(x.shape)
        for i in (1, 0):
            w = params[2 * i]
            delta = np.repeat(np.repeat(delta, 2, 1), 2, 2) * maxima[i] * (outputs[i] > 0)
            grads = [np.einsum("nhwcij,nhwo->ijco", windows[i], delta, optimize=True), delta.sum((0, 1, 2)), *grads]
            if i:  # a convolution with the turned window, over all places that saw the input
                turned = w[::-1, ::-1].swapaxes(2, 3)
                seen = _windows(delta, turned, w.shape[0] - 1 - PADDINGS[i])
                delta = np.einsum("nhwoij,ijoc->nhwc", seen, turned, optimize=True)
        return grads

    return x.reshape(-1, FEATURES), back


def _windows(x: np.ndarray, w: np.ndarray, padding: int) -> np.ndarray:
    """(batch, height, width, channels, window's height, window's width)"""
    wide = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(wide, w.shape[:2], (1, 2))


def _pooled(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The maxima, and where they are; equal ones are all 0 here, behind a relu, where no gradient goes."""
    n, height, width, channels = x.shape
    y = x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))
    return y, np.repeat(np.repeat(y, 2, 1), 2, 2) == x
