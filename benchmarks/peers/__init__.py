"""One file for each of those that are measured; a new one needs no more than its file.

It has `NAME`, as tables show it; `NEEDS`, the packages without which it is not there; `FORMS`, which kinds of work it
does and in which forms; and for each kind a function of that name, `(job, form) -> Program`. It may have `SLOW`, forms
that take long to compile, so that the quick set leaves them out; and `RARE`, forms that are measured where naive ones
are, at few variants.
"""

import ast
import pkgutil
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple


class About(NamedTuple):
    """What is written at the head of a peer's file."""

    file: str
    name: str
    needs: tuple[str, ...]
    forms: dict[str, tuple[str, ...]]
    slow: tuple[str, ...]
    rare: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [package for package in self.needs if find_spec(package) is None]


def names() -> list[str]:
    """Of all files, ours first."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return sorted(found, key=lambda name: name != "ours")


def about(name: str) -> About:
    """Reads the head of a file without running it: its packages need not be there, and are not loaded."""
    folder = Path(__file__).parent / name
    source = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    found = {}
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with suppress(ValueError):  # what is no literal is not of the head
                found[node.targets[0].id] = ast.literal_eval(node.value)
    return About(name, found["NAME"], found["NEEDS"], found["FORMS"], found.get("SLOW", ()), found.get("RARE", ()))


def peer(name: str) -> ModuleType:
    """A peer, loaded with all that it needs."""
    return import_module(f"{__name__}.{name}")
