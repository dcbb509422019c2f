"""The type checker of the tests: it checks annotated shapes at run time. Other types are for mypy."""

import re

from beartype import beartype


def check_shapes(function):
    """Return the function with its jaxtyping annotations checked at every call."""
    annotations = getattr(function, "__annotations__", {})
    shapes = {name: hint for name, hint in annotations.items() if re.search(r"\b(Float|U?Int\d*)\[", str(hint))}
    if not shapes:
        return function
    function.__annotations__ = shapes
    return beartype(function)
