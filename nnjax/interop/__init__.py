"""Exchange networks with PyTorch, Flax, Haiku and Equinox, use them in scikit-learn, export them, and log training.

Each library has its own module, such as `nnjax.interop.torch`. Except for `nnjax.interop.sklearn`, whose classes derive
from scikit-learn's, these modules import the libraries only when they are needed.
"""

import importlib
from typing import TYPE_CHECKING, Any

from nnjax.interop.export import export
from nnjax.interop.logs import csv_log, history_rows, tensorboard_log

if TYPE_CHECKING:
    from nnjax.interop import equinox, flax, haiku, torch

__all__ = ["csv_log", "equinox", "export", "flax", "haiku", "history_rows", "sklearn", "tensorboard_log", "torch"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"nnjax.interop.{name}")
    raise AttributeError(f"module 'nnjax.interop' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)
