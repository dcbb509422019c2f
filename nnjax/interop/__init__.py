"""Weights to and from PyTorch, Flax, Haiku and Equinox, and their modules as layers.

Each library has its own module, such as `nnjax.interop.torch`. Neither `import nnjax.interop` nor these modules import
the library itself before it is needed.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnjax.interop import equinox, flax, haiku, torch

__all__ = ["equinox", "flax", "haiku", "torch"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"nnjax.interop.{name}")
    raise AttributeError(f"module 'nnjax.interop' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)
