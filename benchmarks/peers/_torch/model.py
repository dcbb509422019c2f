"""Networks of PyTorch from arrays with the outputs last, and back."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from benchmarks.jobs.definitions import FEATURES, PADDINGS, Layers, Training

ORDER = np.arange(FEATURES).reshape(5, 5, -1).transpose(2, 0, 1).ravel()  # of features, with the channels first


def network(job: Training, layers: Layers, device: str) -> nn.Sequential:
    """The network, with these parameters."""
    parts: list[nn.Module] = []
    for i, (w, _) in enumerate(layers):
        activation = nn.ReLU() if job.activation == "relu" else nn.Tanh()
        if w.ndim == 4:
            size, _, channels, features = w.shape
            parts += [nn.Conv2d(channels, features, size, padding=PADDINGS[i]), activation, nn.MaxPool2d(2)]
        else:
            parts += [nn.Linear(*w.shape), activation]
    if job.images:
        parts.insert(3 * len(PADDINGS), nn.Flatten())
    model = nn.Sequential(*parts[:-1]).to(device)
    with torch.no_grad():
        for param, array in zip(model.parameters(), to_torch(layers), strict=True):
            param.copy_(torch.from_numpy(array))
    return model


def to_torch(layers: Layers) -> list[np.ndarray]:
    """w and b of each layer in turn, w as (…, outputs, inputs, …); a leading axis of members stays where it is."""
    given = []
    for i, (w, b) in enumerate(layers):
        if i and _convolves(layers[i - 1][0]) and not _convolves(w):
            w = w[..., ORDER, :]  # noqa: PLW2901
        given += [np.moveaxis(w, (-1, -2), (-4, -3)) if _convolves(w) else w.swapaxes(-1, -2), b]
    return [np.ascontiguousarray(array) for array in given]


def from_torch(params: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What `to_torch` was given."""
    found: list[np.ndarray] = []
    for w, b in zip(params[::2], params[1::2], strict=True):
        back = np.moveaxis(w, (-4, -3), (-1, -2)) if _convolves(w) else w.swapaxes(-1, -2)
        if found and _convolves(found[-2]) and not _convolves(w):
            back = back[..., np.argsort(ORDER), :]
        found += [back.copy(), b.copy()]
    return found


def _convolves(w: np.ndarray) -> bool:
    return w.ndim >= 4  # of a dense layer it has 2 axes, or 3 with members
