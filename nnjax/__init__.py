"""Functional neural networks on JAX: a training run is a pure function of a key and the data."""

from nnjax import data, losses, metrics, nn, optim, train, uncertainty
from nnjax.types import Data, Layer, TrainState

__version__ = "0.1.0"

__all__ = [
    "Data",
    "Layer",
    "TrainState",
    "__version__",
    "data",
    "losses",
    "metrics",
    "nn",
    "optim",
    "train",
    "uncertainty",
]
