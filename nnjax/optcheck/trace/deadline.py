"""Limit the wall-clock time of a check, even if the optimizer never returns."""

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TimeLimitError(TimeoutError):
    """Raised when the time limit has passed."""


class Deadline:
    """A point in time. `check` is called between steps; `interrupt_at` also ends a step that does not return."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = math.inf if seconds is None else seconds
        self.time = time.monotonic() + self.seconds

    def check(self) -> None:
        """Raise TimeLimitError if the deadline has passed."""
        if time.monotonic() > self.time:
            raise TimeLimitError(f"optcheck: the check took longer than {self.seconds:g} s; pass a larger seconds=")


@contextmanager
def exits_are_errors() -> Iterator[None]:
    """Turn `sys.exit` and `os._exit` in the body into errors, because an exit with code 0 would look like a match.

    Raises:
      RuntimeError: if the body tries to end the process.
    """

    def refuse(code: int) -> None:
        raise RuntimeError(f"optcheck: the optimizer called os._exit({code})")

    leave = os._exit
    os._exit = refuse  # type: ignore[assignment]
    try:
        yield
    except SystemExit as error:
        raise RuntimeError(f"optcheck: the optimizer called sys.exit({error.code})") from error
    finally:
        os._exit = leave


class _Interrupt(BaseException):
    """Raised to interrupt the body. `except Exception` does not catch it, because it derives from BaseException."""


@contextmanager
def interrupt_at(deadline: Deadline) -> Iterator[None]:
    """Interrupt the body at the deadline.

    This works only in the main thread, on systems with SIGALRM, and not during compiled code.

    Raises:
      TimeLimitError: at the deadline.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if math.isinf(deadline.seconds) or not in_main_thread or not hasattr(signal, "setitimer"):
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _Interrupt

    handler = signal.signal(signal.SIGALRM, interrupt)
    start = time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, max(deadline.time - start, 1e-3), 0.5)
    try:
        yield
    except _Interrupt:
        raise TimeLimitError(f"optcheck: the check did not end within {deadline.seconds:g} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left > 0:  # restart an earlier timer, such as a test's time limit
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - start), 1e-3), interval)
