"""Find the inputs that a network takes as integers or booleans, such as tokens and masks, but not images."""

from itertools import combinations, islice
from typing import Any

import jax
import numpy as np

from nnjax.data import as_data
from nnjax.data._source import CheckedGather
from nnjax.data._validate import as_arrays, is_x, named_leaves
from nnjax.types import Data, Key, Trainable

TRIES = 64  # largest number of combinations of leaves to try
SMALL = (np.dtype(np.uint8), np.dtype(bool))


def uncast_inputs(run: Trainable, key: Key, data: Any, name: str = "data") -> frozenset[str]:
    """Return the names of the uint8 and boolean leaves of x that the network does not accept as float32.

    The set is as small as possible. It is found by tracing `run.init` on shapes and dtypes; nothing is computed. If the
    network accepts none of the first 64 combinations, the set is empty, and `run.init` raises its own error later.
    """
    stored = _stored_shapes(data, name)
    if stored is None:
        return frozenset()
    names = [name.removeprefix("data.") for name, leaf in named_leaves(stored) if is_x(name) and leaf.dtype in SMALL]
    fewest_first = (set(keep) for size in range(len(names) + 1) for keep in combinations(names, size))
    accepted = (keep for keep in islice(fewest_first, TRIES) if _accepts(run, key, stored, set(names) - keep))
    return frozenset(next(accepted, ()))


def _stored_shapes(data: Any, name: str) -> Data | None:
    """Return the shapes and dtypes of the data before any cast, or None if no leaf of x is uint8 or boolean."""
    gather: Any = getattr(data, "gather", None)  # a `CheckedGather` if the source was checked before
    stored = gather.first if isinstance(gather, CheckedGather) else None if data is None else as_data(data, name)
    if stored is None:
        return None
    if not any(getattr(leaf, "dtype", None) in SMALL for leaf in jax.tree.leaves(stored.x)):
        return None
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), as_arrays(stored, name=name))


def _accepts(run: Trainable, key: Key, stored: Data, cast: set[str]) -> bool:
    """Return True if the run can be initialised after the leaves named in `cast` are cast to float32."""
    shapes = [
        jax.ShapeDtypeStruct(leaf.shape, np.float32 if name.removeprefix("data.") in cast else leaf.dtype)
        for name, leaf in named_leaves(stored)
    ]
    try:
        jax.eval_shape(run.init, key, jax.tree.unflatten(jax.tree.structure(stored), shapes))
    except Exception:
        return False
    return True
