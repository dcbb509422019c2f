"""Functional neural networks on JAX: a training run is a pure function of a key and the data."""

import sys

try:
    from nnjax import data, losses, metrics, nn, optim, train, uncertainty
    from nnjax.types import Data, Layer, TrainState
except KeyboardInterrupt:  # while JAX is loading
    if sys.argv[0].endswith(("/nnjax", "\\nnjax.exe")):  # the command, whose own code comes after this file
        raise SystemExit(130) from None
    raise

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
