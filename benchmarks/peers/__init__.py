"""Measure libraries ("peers"), each in one file or folder. To add a peer, add its file.

The top of a peer's file defines
  NAME: the name of the peer in tables;
  NEEDS: the packages that the peer needs; it is skipped if one is not installed;
  FORMS: the names of the peer's implementations ("forms") for each kind of work;
and optionally
  SLOW: forms that are slow to compile and are omitted in the quick set;
  RARE: forms that are measured only for the variants for which naive forms are measured;
  APART: forms that change settings of their process, such as its devices, and therefore need a separate process. All
    other forms of a peer share one process.
For each kind of work, the file defines a function `(job, form) -> Program` with the name of this kind.

Peers do not import each other. Code that several peers share is in `_jax` and `_torch`.
"""

import ast
import pkgutil
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple


class Head(NamedTuple):
    """The definitions at the top of a peer's file."""

    file: str
    name: str
    needs: tuple[str, ...]
    forms: dict[str, tuple[str, ...]]
    slow: tuple[str, ...]
    rare: tuple[str, ...]
    apart: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """Return the needed packages that are not installed."""
        return [package for package in self.needs if find_spec(package) is None]


def peer_names() -> list[str]:
    """Return the names of all peer files, with nnjax's first."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return sorted(names, key=lambda name: name != "ours")


def read_head(name: str) -> Head:
    """Read the definitions at the top of a peer's file without importing it or its packages."""
    folder = Path(__file__).parent / name
    source = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    values = {}
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with suppress(ValueError):  # ignore assignments that are not literals
                values[node.targets[0].id] = ast.literal_eval(node.value)
    return Head(
        file=name,
        name=values["NAME"],
        needs=values["NEEDS"],
        forms=values["FORMS"],
        slow=values.get("SLOW", ()),
        rare=values.get("RARE", ()),
        apart=values.get("APART", ()),
    )


def load_peer(name: str) -> ModuleType:
    """Import a peer and its packages."""
    return import_module(f"{__name__}.{name}")
