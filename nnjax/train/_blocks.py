"""Compute in blocks to save memory: a function of many rows, and the gradient of many steps."""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from nnjax.types import PyTree

ROWS = 4096  # rows per block: large enough to use the whole device, small enough for its memory
T = TypeVar("T")
Carry = TypeVar("Carry")


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


def scan_in_blocks(steps: Callable[[Carry, int], tuple[Carry, PyTree]], carry: Carry, n: int) -> tuple[Carry, PyTree]:
    """Return `steps(carry, n)`, with a gradient that stores only about 2 √n carries.

    The forward pass stores the carries between about √n blocks of steps. The backward pass recomputes the carries
    inside each block, which costs one more forward pass.

    Args:
      steps: function `(carry, n) -> (carry, logs)` that takes n steps; logs have a leading axis of length n.
      carry: the initial carry.
      n: number of steps, as a Python integer.

    Source: Griewank 1992; Chen et al. 2016, arXiv:1604.06174.
    """
    size = math.isqrt(max(n, 1) - 1) + 1  # √n, rounded up
    count, rest = divmod(n, size)
    block = jax.checkpoint(lambda carry: steps(carry, size), prevent_cse=False)  # a scan already prevents CSE
    carry, logs = lax.scan(lambda carry, _: block(carry), carry, length=count)
    logs = jax.tree.map(lambda a: a.reshape(count * size, *a.shape[2:]), logs)
    if rest == 0:
        return carry, logs
    carry, last = jax.checkpoint(lambda carry: steps(carry, rest))(carry)
    return carry, jax.tree.map(lambda *parts: lax.concatenate(parts, 0), logs, last)
