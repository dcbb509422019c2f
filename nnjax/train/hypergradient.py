"""Gradients through a whole run, in memory that grows like the root of its length."""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
from jax import lax

from nnjax.types import PyTree

Carry = TypeVar("Carry")


def in_blocks(steps: Callable[[Carry, int], tuple[Carry, PyTree]], carry: Carry, n: int) -> tuple[Carry, PyTree]:
    """`steps(carry, n)` as about √n blocks, of which the reverse pass keeps the carry between them alone.

    A block's own carries are computed again when the reverse pass comes to it: √n carries and one block are in memory
    at a time, in place of n steps, for one more forward pass.

    Args:
      steps: `(carry, n) -> (carry, logs)`, n steps that go on where the carry stands, logs with a leading axis of n.
      carry: the start.
      n: number of steps, static; any number.

    Source: Griewank 1992; Chen et al. 2016, arXiv:1604.06174.
    """
    size = math.isqrt(max(n, 1) - 1) + 1  # the root, rounded up
    count, rest = divmod(n, size)
    block = jax.checkpoint(lambda carry: steps(carry, size), prevent_cse=False)  # a scan keeps the two passes apart
    carry, logs = lax.scan(lambda carry, _: block(carry), carry, length=count)
    logs = jax.tree.map(lambda a: a.reshape(count * size, *a.shape[2:]), logs)
    if rest == 0:
        return carry, logs
    carry, last = jax.checkpoint(lambda carry: steps(carry, rest))(carry)
    return carry, jax.tree.map(lambda *parts: lax.concatenate(parts, 0), logs, last)
