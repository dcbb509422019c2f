"""Define the benchmark cases, one file each. Each case measures one aspect of speed.

A case file defines
  KIND: the kind of work, which is the name of a function in the peers' files;
  UNIT: the unit of work that is timed;
  JOBS: the variants, keyed by name;
  QUICK: the names of the variants in the quick set;
and optionally
  ROUNDS: the number of rounds for variants that do not use the default, keyed by name;
  THOROUGH: the variants for which naive and rare implementations are measured, too (default: all);
  EXTRA: variants that are too slow for the full set and are measured only with --thorough.
"""

import pkgutil
from importlib import import_module
from types import ModuleType


def case_names() -> list[str]:
    """Return the names of all cases, with the calibration first."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted(names, key=lambda name: (name != "calibrate", name))


def load_case(name: str) -> ModuleType:
    """Import a case, without importing any of the measured libraries."""
    return import_module(f"{__name__}.{name}")
