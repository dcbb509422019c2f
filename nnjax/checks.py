"""The checks of arguments that all parts of nnjax share. A message says where, what was got, and what to do."""

import difflib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")


@contextmanager
def located(place: str) -> Iterator[None]:
    """Give every error that passes through, JAX's own too, its place in the network."""
    try:
        yield
    except Exception as error:
        error.add_note(place)
        raise


def is_traced(value: Any) -> bool:
    """Whether the value is unknown until the program runs, so that only its shape and dtype can be checked."""
    return isinstance(value, jax.core.Tracer)


def shapes(x: Any) -> str:
    """The shapes of a pytree's leaves, as an error message shows them."""
    found = [str(jnp.shape(leaf)) for leaf in jax.tree.leaves(x)]
    return found[0] if len(found) == 1 else "[" + ", ".join(found) + "]"


def positive_int(where: str, name: str, value: Any) -> int:
    """`value` as an int of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{where}: {name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{where}: {name} must be ≥ 1, got {value}")
    return int(value)


def in_range(where: str, name: str, value: Any, interval: str) -> Any:
    """A hyper-parameter inside an interval such as "[0, 1)": a Python float, or an array of shape () as it is.

    Tracers pass: their value is not known. NumPy's floats become Python's, which do not promote float32 parameters.
    """
    if value is None or isinstance(value, str) or np.ndim(value) != 0:
        raise ValueError(f"{where}: {name} must be one number, got {value!r}; jax.vmap over several")
    if is_traced(value):
        return value
    low, high = (float(end) for end in interval[1:-1].split(","))
    number = float(value)
    above = number >= low if interval[0] == "[" else number > low
    below = number <= high if interval[-1] == "]" else number < high
    if math.isnan(number) or not (above and below):
        raise ValueError(f"{where}: {name} must be in {interval}, got {number:g}")
    return value if isinstance(value, jax.Array) else number


def one_of(where: str, name: str, value: str, known: Iterable[str]) -> str:
    """`value` as one of the known names; the error lists them, the nearest first."""
    names = list(known)
    if value in names:
        return value
    near = difflib.get_close_matches(str(value), names, n=len(names), cutoff=0.4)
    ordered = near + sorted(set(names) - set(near))
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"{where}: unknown {name} {value!r}{hint}; known are {', '.join(ordered)}")


def is_key(value: Any) -> bool:
    """Whether `value` holds random keys, typed (`jax.random.key`) or legacy (uint32 pairs)."""
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return False
    return bool(jnp.issubdtype(dtype, jax.dtypes.prng_key)) or (dtype == jnp.uint32 and value.shape[-1:] == (2,))


def key(where: str, value: Any, x: Any = None) -> Any:
    """One typed random key; a legacy uint32 key is wrapped. `x` is what stood beside it, to notice a swap."""
    if not is_key(value):
        if is_key(x) and hasattr(value, "shape"):
            raise TypeError(f"{where}: key and x are swapped: the call is init(key, x)")
        if isinstance(value, (int, np.integer)):
            raise TypeError(f"{where}: key must be a random key, got the integer {value}; use jax.random.key({value})")
        raise TypeError(f"{where}: key must be a random key such as jax.random.key(0), got {type(value).__name__}")
    if not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.wrap_key_data(value)
    if value.shape != ():
        raise ValueError(f"{where}: one key expected, got keys of shape {value.shape}; jax.vmap over several keys")
    return value


def batched(where: str, x: Any, axes: str = "(batch, features)", ndim: int = 2) -> None:
    """`x` is a floating array of at least `ndim` axes, the first of which is the batch."""
    if not hasattr(x, "shape"):
        raise TypeError(f"{where}: x must be an array {axes}, got {type(x).__name__}")
    if len(x.shape) < ndim:
        missing = "; use x[None]" if ndim == 2 else "; use x[..., None] for one channel"
        hint = missing if len(x.shape) == ndim - 1 else ""
        raise ValueError(f"{where}: x must be {axes}, got {tuple(x.shape)}{hint}")
    if x.shape[-1] == 0:
        raise ValueError(f"{where}: x has 0 features, its shape is {tuple(x.shape)}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{where}: x must be floating, got {x.dtype}; cast it, as in x.astype(jnp.float32)")


def features(where: str, x: Any, expected: int) -> None:
    """The last axis of `x` is as wide as the parameters expect."""
    if x.shape[-1] != expected:
        raise ValueError(f"{where}: expected {expected} features, got {x.shape[-1]} (x is {tuple(x.shape)})")


def path_name(path: tuple[Any, ...]) -> str:
    """The path of a leaf as people write it: `0/w`."""
    return jax.tree_util.keystr(path, simple=True, separator="/") or "(the tree itself)"
