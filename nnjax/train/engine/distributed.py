"""Several processes as one program, by JAX's own distributed runtime."""

import atexit
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np

LOST = re.compile(r"gloo|nccl|connection|unavailable|deadline_exceeded|heartbeat", re.IGNORECASE)  # in JAX's errors
HEARTBEAT = 20  # seconds after which a process that is silent counts as dead, and ends the others


class ProcessLostError(RuntimeError):
    """Another process ended, or cannot be reached."""


def start(coordinator: str | None, processes: int | None, index: int | None) -> None:
    """Make this process one of several. To be called before anything else of JAX.

    Args:
      coordinator: "host:port" of the first process, or None where the cluster's environment tells.
      processes: how many there are; None where the environment tells.
      index: of this one, from 0; None where the environment tells.

    Raises:
      ValueError: for an address without a port, or an index outside 0 … processes - 1.
      RuntimeError: where the others do not come within five minutes.
    """
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise ValueError(f"coordinator must be host:port, got {coordinator!r}")
    if processes is not None and index is not None and not 0 <= index < processes:
        raise ValueError(f"the index of the process must be in 0 … {processes - 1}, got {index}")
    jax.distributed.initialize(coordinator, processes, index, heartbeat_timeout_seconds=HEARTBEAT)


def agree(size: int, flags: tuple[bool, ...]) -> tuple[int, tuple[bool, ...]]:
    """What all processes do next: the smallest size, and each flag that is set in any of them.

    Clocks and signals differ between processes; the programs that exchange must not.
    """
    if jax.process_count() == 1:
        return size, flags
    from jax.experimental import multihost_utils  # only here: a run of one process has no use for it

    said = np.asarray(multihost_utils.process_allgather(np.array([size, *flags], np.int32)))
    return int(said[:, 0].min()), tuple(bool(column.any()) for column in said[:, 1:].T)


@contextmanager
def lost_told(folder: Path | None) -> Iterator[None]:
    """While it lasts, the error of a process that another one cannot be reached from says so, and what to do.

    Such a process ends without JAX's farewell, which would wait for the other and then abort.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # of Gloo it is sometimes a ValueError
        if jax.process_count() == 1 or not LOST.search(str(error)):
            raise
        atexit.register(_leave)
        how = "" if folder is None else f"; resume=True goes on from the last checkpoint in {folder}"
        text = f"fit: another process ended or cannot be reached: start all processes again{how}"
        raise ProcessLostError(text) from error


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
