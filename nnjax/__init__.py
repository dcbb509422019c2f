"""Functional neural networks on JAX: a training run is a pure function of a key and the data."""

import importlib
from typing import TYPE_CHECKING, Any

from nnjax._version import __version__

if TYPE_CHECKING:
    from nnjax import data, debug, interop, losses, metrics, nn, optcheck, optim, plot, storage, train, uncertainty
    from nnjax._reproducible import reproducible
    from nnjax.storage.tree_file import load, save
    from nnjax.types import Data, Layer, TrainState

__all__ = [
    "Data",
    "Layer",
    "TrainState",
    "__version__",
    "data",
    "debug",
    "interop",
    "load",
    "losses",
    "metrics",
    "nn",
    "optcheck",
    "optim",
    "plot",
    "reproducible",
    "save",
    "storage",
    "train",
    "uncertainty",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use. Pytest imports nnjax for its plugin, and that must not load JAX."""
    if name in ("Data", "Layer", "TrainState"):
        return getattr(importlib.import_module("nnjax.types"), name)
    if name == "reproducible":
        return importlib.import_module("nnjax._reproducible").reproducible
    if name in ("load", "save"):
        return getattr(importlib.import_module("nnjax.storage.tree_file"), name)
    if name in __all__:
        return importlib.import_module(f"nnjax.{name}")
    raise AttributeError(f"module 'nnjax' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)
