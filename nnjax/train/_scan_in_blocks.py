"""A scan whose gradient needs memory for few of its steps."""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
from jax import lax

from nnjax.types import PyTree

Carry = TypeVar("Carry")


def scan_in_blocks(steps: Callable[[Carry, int], tuple[Carry, PyTree]], carry: Carry, n: int) -> tuple[Carry, PyTree]:
    """Return `steps(carry, n)`, computed so that `jax.grad` needs memory for about 2 √n carries.

    The steps form about √n blocks, and the reverse pass keeps only the carries between them. When it reaches a block,
    it computes the block's own carries again: one more forward pass in exchange for the memory of n steps.

    Args:
      steps: `(carry, n) -> (carry, logs)` takes n steps; logs have a leading axis of n.
      carry: the initial carry.
      n: number of steps, static; any number.

    Source: Griewank 1992; Chen et al. 2016, arXiv:1604.06174.
    """
    size = math.isqrt(max(n, 1) - 1) + 1  # the root, rounded up
    count, rest = divmod(n, size)
    block = jax.checkpoint(lambda carry: steps(carry, size), prevent_cse=False)  # XLA cannot merge passes in a scan
    carry, logs = lax.scan(lambda carry, _: block(carry), carry, length=count)
    logs = jax.tree.map(lambda a: a.reshape(count * size, *a.shape[2:]), logs)
    if rest == 0:
        return carry, logs
    carry, last = jax.checkpoint(lambda carry: steps(carry, rest))(carry)
    return carry, jax.tree.map(lambda *parts: lax.concatenate(parts, 0), logs, last)
