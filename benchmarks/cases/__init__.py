"""The cases, one file each. A case is a question about speed.

A case file defines
  KIND: the kind of work, a function that peers have;
  UNIT: what is timed;
  JOBS: the variants by name;
  QUICK: the variants in the quick set;
and optionally
  ROUNDS: the number of rounds of variants that take long;
  THOROUGH: the variants at which naive and rare forms are measured too (default: all);
  EXTRA: variants that are too long for the full set and measured only with --thorough.
"""

import pkgutil
from importlib import import_module
from types import ModuleType


def case_names() -> list[str]:
    """Return the names of all cases, the calibration first."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted(names, key=lambda name: (name != "calibrate", name))


def load_case(name: str) -> ModuleType:
    """Import a case. This imports none of the libraries that are measured."""
    return import_module(f"{__name__}.{name}")
