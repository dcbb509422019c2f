"""Run several processes as one program, on JAX's distributed runtime."""

import atexit
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np

from nnjax._reproducible import has_started

# Words in JAX's error messages that indicate a lost process
LOST = re.compile(r"gloo|nccl|connection|unavailable|deadline_exceeded|heartbeat", re.IGNORECASE)
HEARTBEAT = 20  # seconds without a heartbeat until a process counts as dead and the others exit


_forked = threading.Event()  # set in a process that was forked after JAX had started


def _after_fork() -> None:
    if has_started():
        _forked.set()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def refuse_forked_process(where: str) -> None:
    """Raise RuntimeError in a process that was forked after JAX had started.

    A fork does not copy JAX's threads, so the first program would wait forever. A process that is forked before JAX
    starts may train.
    """
    if _forked.is_set():
        raise RuntimeError(
            f"{where}: this process was forked after JAX had started, and JAX's threads do not survive a fork; start "
            "processes with multiprocessing.get_context('spawn')"
        )


class ProcessLostError(RuntimeError):
    """Another process ended or cannot be reached."""


def join_processes(coordinator: str | None, processes: int | None, index: int | None) -> None:
    """Connect this process to the other processes of a run. Call this before using JAX in any other way.

    Args:
      coordinator: "host:port" of the first process; None if the cluster's environment provides it.
      processes: number of processes; None if the environment provides it.
      index: index of this process, counted from 0; None if the environment provides it.

    Raises:
      ValueError: if the address has no port, or if the index is outside 0 … processes - 1.
      RuntimeError: if the other processes do not connect within five minutes.
    """
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise ValueError(f"coordinator must be host:port, got {coordinator!r}; add a port, as in host1:1234")
    if processes is not None and index is not None and not 0 <= index < processes:
        raise ValueError(f"the index of the process must be in 0 … {processes - 1}, got {index}")
    jax.distributed.initialize(coordinator, processes, index, heartbeat_timeout_seconds=HEARTBEAT)


def all_agree(size: int, flags: tuple[bool, ...]) -> tuple[int, tuple[bool, ...]]:
    """Agree with all processes on the smallest size and on the flags that any process has set.

    Clocks and signals differ between processes, but all processes must run the same programs.
    """
    if jax.process_count() == 1:
        return size, flags
    from jax.experimental import multihost_utils  # imported here because a single process does not need it

    gathered = np.asarray(multihost_utils.process_allgather(np.array([size, *flags], np.int32)))
    return int(gathered[:, 0].min()), tuple(bool(column.any()) for column in gathered[:, 1:].T)


@contextmanager
def explain_lost_process(folder: Path | None) -> Iterator[None]:
    """Convert errors caused by a lost connection to a `ProcessLostError` that explains how to continue.

    The process then exits without JAX's shutdown, which would wait for the other process and then abort.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # Gloo sometimes raises ValueError
        if jax.process_count() == 1 or not LOST.search(str(error)):
            raise
        atexit.register(_exit_now)
        how = "" if folder is None else f"; resume=True continues from the last checkpoint in {folder}"
        text = f"fit: another process ended or cannot be reached: start all processes again{how}"
        raise ProcessLostError(text) from error


def _exit_now() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
