"""Name the operation that makes a value non-finite, if `jax_debug_nans` or `jax_debug_infs` is set."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from nnjax.train.engine.device_loop import Block, Status
from nnjax.train.engine.fit_state import FitState
from nnjax.train.engine.placement import copy_tree
from nnjax.types import Log

Advance = Callable[[FitState, np.ndarray, np.ndarray, Block | None], tuple[FitState, Log, Status]]
T = TypeVar("T")


def raise_at_operation(fs: FitState, program: Callable[[FitState], T], repeat: Callable[[FitState], Any]) -> T:
    """Return `program(fs)`. With `jax_debug_nans` or `jax_debug_infs`, raise in the first non-finite operation.

    JAX cannot find this operation itself, because its rerun would need the donated argument, and because it treats a
    loop as one operation.

    Args:
      fs: the state, whose memory the program reuses.
      program: the compiled program.
      repeat: function of the same state that runs the operations one by one and raises in the first non-finite one.
    """
    config: Any = jax.config
    if not (config.jax_debug_nans or config.jax_debug_infs):
        return program(fs)
    backup = copy_tree(fs)
    try:
        return jax.block_until_ready(program(fs))
    except (FloatingPointError, RuntimeError, ValueError):  # JAX may raise any of these
        repeat(backup)
        raise


def advance_to_operation(advance: Advance, members: int) -> Advance:
    """Return `advance`, which takes a chunk of steps. With the flags set, it raises in the first non-finite operation.

    Args:
      advance: function `(fs, done, until, block)`, see `host_loop.chunk_function`.
      members: number of members, without padding members.
    """

    def repeat(fs: FitState, done: np.ndarray, until: np.ndarray, block: Block | None) -> None:
        with jax.debug_nans(False), jax.debug_infs(False):
            _, _, status = advance(copy_tree(fs), done, until, block)
            bad = np.asarray(status.diverged)[:members]
            last = np.where(bad >= 0, bad, until - 1)
            start = np.maximum(done, done + (last - done).min() - 1)  # a non-finite gradient shows in the next loss
            fs, _, _ = advance(fs, done, start, block)
        with jax.disable_jit():
            advance(fs, start, np.minimum(start + 2, until), block)

    return lambda fs, *args: raise_at_operation(fs, lambda fs: advance(fs, *args), lambda fs: repeat(fs, *args))
