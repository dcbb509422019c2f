"""Suggest the intended name when a module does not have an attribute."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn


def missing_name(module: str, public: Iterable[str], others: Mapping[str, str]) -> Callable[[str], NoReturn]:
    """Return a `__getattr__` for a module; its AttributeError suggests the name that the user probably meant.

    Args:
      module: name of the module, for messages.
      public: public names of the module.
      others: nnjax's equivalents of names in other libraries; the keys are in lower case without underscores.
    """
    known = {name.lower().replace("_", ""): f"{module}.{name}" for name in public} | dict(others)

    def missing(name: str) -> NoReturn:
        plain = name.lower().replace("_", "")
        near = difflib.get_close_matches(plain, known, n=1, cutoff=0.7)
        hint = f"; did you mean {known[near[0]]}?" if near else f"; it has {', '.join(public)}"
        hint = f"; use {known[plain]}" if plain in known else hint
        raise AttributeError(f"module 'nnjax.{module}' has no attribute {name!r}{hint}")

    return missing
