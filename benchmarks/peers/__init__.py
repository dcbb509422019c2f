"""One file for each of those that are measured; a new one needs no more than its file.

It has `NAME`, as tables show it; `NEEDS`, the packages without which it is not there; `FORMS`, which kinds of work it
does and in which forms; and for each kind a function of that name, `(job, form) -> Program`.
"""

import pkgutil
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


def names() -> list[str]:
    """Of all files, ours first."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return sorted(found, key=lambda name: name != "ours")


def peer(name: str) -> ModuleType:
    """A peer, loaded with all that it needs."""
    return import_module(f"{__name__}.{name}")


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not loaded."""
    return find_spec(package) is not None
