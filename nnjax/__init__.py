"""Functional neural networks on JAX: a training run is a pure function of a key and the data."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnjax import data, losses, metrics, nn, optcheck, optim, train, uncertainty
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
    "optcheck",
    "optim",
    "train",
    "uncertainty",
]


def __getattr__(name: str) -> Any:
    """Parts are loaded when they are asked for: pytest loads the plugin in here, which is not to load JAX."""
    if name in ("Data", "Layer", "TrainState"):
        return getattr(importlib.import_module("nnjax.types"), name)
    if name in __all__:
        return importlib.import_module(f"nnjax.{name}")
    raise AttributeError(f"module 'nnjax' has no attribute {name!r}; it has {', '.join(__all__)}")
