"""Allow intentional transfers between host and device under `jax.transfer_guard`."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")


def allow_transfers(function: Callable[P, T]) -> Callable[P, T]:
    """Allow a function to transfer arrays even under `jax.transfer_guard("disallow")`.

    The guard helps users to find transfers in their own loops. The decorated functions transfer intentionally, once for
    many steps.
    """

    @functools.wraps(function)
    def allowed(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.transfer_guard("allow"):
            return function(*args, **kwargs)

    return allowed
