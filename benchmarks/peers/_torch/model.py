"""Build the network of the training jobs in PyTorch, and convert its arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.jobs.definitions import Training
from benchmarks.jobs.inputs import FEATURES, IMAGE, PADDINGS, Inputs, Layers
from benchmarks.peers._torch.device import DEVICE

CHANNELS_FIRST = np.arange(FEATURES).reshape(5, 5, -1).transpose(2, 0, 1).ravel()  # order of the features in PyTorch


def make_network(job: Training, layers: Layers) -> nn.Sequential:
    """Build the network of the job with the given parameters."""
    modules: list[nn.Module] = []
    for i, (w, _) in enumerate(layers):
        activation = nn.ReLU() if job.activation == "relu" else nn.Tanh()
        if w.ndim == 4:
            size, _, channels, features = w.shape
            modules += [nn.Conv2d(channels, features, size, padding=PADDINGS[i]), activation, nn.MaxPool2d(2)]
        else:
            modules += [nn.Linear(*w.shape), activation]
    if job.images:
        modules.insert(3 * len(PADDINGS), nn.Flatten())
    model = nn.Sequential(*modules[:-1]).to(DEVICE)
    with torch.no_grad():
        for param, array in zip(model.parameters(), to_torch_layout(layers), strict=True):
            param.copy_(torch.from_numpy(array))
    return model


def mean_loss(job: Training, prediction: Tensor, target: Tensor) -> Any:
    """Return the job's loss, averaged over the batch."""
    if job.loss == "cross_entropy":
        return functional.cross_entropy(prediction, target)
    return (prediction - target).square().sum(-1).mean()


def to_tensors(inputs: Inputs, device: str = DEVICE) -> tuple[Tensor, Tensor]:
    """Convert x and y to tensors: images with channels first, labels as int64 for `cross_entropy`."""
    array = np.moveaxis(inputs.x, -1, -3) if inputs.x.shape[-3:] == IMAGE else inputs.x
    x, y = torch.from_numpy(np.ascontiguousarray(array)).to(device), torch.from_numpy(inputs.y).to(device)
    return x, y if y.is_floating_point() else y.long()


def to_arrays(params: Sequence[Tensor]) -> list[np.ndarray]:
    """Convert parameters to w and b of each layer, in order, with w as (…, inputs, outputs)."""
    return from_torch_layout([param.detach().cpu().numpy() for param in params])


def to_torch_layout(layers: Layers) -> list[np.ndarray]:
    """Return w and b of each layer, in order, with w as (…, outputs, inputs, …); a members axis stays first."""
    arrays = []
    for i, (w, b) in enumerate(layers):
        if i and _is_convolution(layers[i - 1][0]) and not _is_convolution(w):
            w = w[..., CHANNELS_FIRST, :]  # noqa: PLW2901
        arrays += [np.moveaxis(w, (-1, -2), (-4, -3)) if _is_convolution(w) else w.swapaxes(-1, -2), b]
    return [np.ascontiguousarray(array) for array in arrays]


def from_torch_layout(params: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Invert `to_torch_layout`."""
    arrays: list[np.ndarray] = []
    for torch_w, b in zip(params[::2], params[1::2], strict=True):
        is_convolution = _is_convolution(torch_w)
        w = np.moveaxis(torch_w, (-4, -3), (-1, -2)) if is_convolution else torch_w.swapaxes(-1, -2)
        if arrays and _is_convolution(arrays[-2]) and not is_convolution:
            w = w[..., np.argsort(CHANNELS_FIRST), :]
        arrays += [w.copy(), b.copy()]
    return arrays


def _is_convolution(w: np.ndarray) -> bool:
    return w.ndim >= 4  # dense weights have 2 axes, or 3 with members
