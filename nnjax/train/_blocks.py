"""Apply a function to large arrays in blocks of rows, to save memory."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from nnjax.types import PyTree

ROWS = 4096  # rows per block: large enough to use the whole device, small enough for its memory
T = TypeVar("T")


def map_blocks(function: Callable[[PyTree, Array], T], x: PyTree) -> T:
    """Return `function(x, 0)`, computed in blocks of 4096 rows.

    Args:
      function: function `(rows of x, index of the first row) -> tree of arrays (rows, ...)`.
      x: tree of arrays (rows, ...). A tree without arrays is passed as one block.
    """
    n = next((leaf.shape[0] for leaf in jax.tree.leaves(x)), 0)
    whole, rest = divmod(n, ROWS)
    if whole == 0 or (whole == 1 and rest == 0):
        return function(x, jnp.zeros((), jnp.int32))
    cut = whole * ROWS
    blocks = jax.tree.map(lambda a: a[:cut].reshape(whole, ROWS, *a.shape[1:]), x)
    y = lax.map(lambda block: function(*block), (blocks, ROWS * jnp.arange(whole, dtype=jnp.int32)))
    y = jax.tree.map(lambda a: a.reshape(cut, *a.shape[2:]), y)
    if rest == 0:
        return y
    last = function(jax.tree.map(lambda a: a[cut:], x), jnp.asarray(cut, jnp.int32))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), y, last)
