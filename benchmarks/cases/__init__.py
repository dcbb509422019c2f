"""One file for each question.

It has `KIND`, the function of the peers that does such work; `UNIT`, what is counted; `JOBS`, the variants by name;
and `QUICK`, those that the quick set takes. It may have `ROUNDS`: for variants that take long, how many; and
`THOROUGH`: the variants, if not all, at which naive forms are measured too, and those that a peer calls rare; and
`EXTRA`: the variants that are too long for the full set, and measured when everything is asked for.
"""

import pkgutil
from importlib import import_module
from types import ModuleType


def names() -> list[str]:
    """Of all files, the machine's own limits first."""
    return sorted(
        (module.name for module in pkgutil.iter_modules(__path__)), key=lambda name: (name != "calibrate", name)
    )


def case(name: str) -> ModuleType:
    """A case. Loading it loads no library that is measured."""
    return import_module(f"{__name__}.{name}")
