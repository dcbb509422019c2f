"""Scan over n steps with a gradient that stores only about 2 √n carries."""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
from jax import lax

from nnjax.types import PyTree

Carry = TypeVar("Carry")


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
