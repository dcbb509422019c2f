"""Compile functions of an ensemble, and free the programs of ensembles that are no longer used."""

from collections.abc import Callable
from functools import lru_cache, partial, wraps
from typing import Any, TypeVar

import jax

ENSEMBLES = 32  # number of ensembles whose programs are kept

T = TypeVar("T")


def compiled(
    *, static: tuple[str, ...] = (), donated: tuple[str, ...] = ()
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Return a decorator that compiles a function whose first argument, an ensemble, is static.

    `jax.jit` caches programs and networks for thousands of static arguments, so a process would grow by 20 MB with
    each network that it trains. Here each ensemble has its own jitted function, and only the functions of the 32 most
    recently used ensembles are kept.

    Args:
      static: names of further static arguments.
      donated: names of the arguments whose memory is reused.
    """

    def decorator(f: Callable[..., T]) -> Callable[..., T]:
        @lru_cache(maxsize=ENSEMBLES)
        def program(ensemble: Any) -> Any:
            return jax.jit(partial(f, ensemble), static_argnames=static, donate_argnames=donated)

        @wraps(f)
        def call(ensemble: Any, *args: Any, **kwargs: Any) -> T:
            result: T = program(ensemble)(*args, **kwargs)
            return result

        return call

    return decorator
