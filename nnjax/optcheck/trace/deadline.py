"""A time by which a check must be over, whatever the optimizer does."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class OverdueError(TimeoutError):
    """The time is over."""


class Deadline:
    """A point in time. It is looked at between steps; `enforced` also interrupts a step that never ends."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.at = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then."""
        return self.at - time.monotonic()

    def look(self) -> None:
        """Raises OverdueError where the time is over."""
        if self.left() < 0:
            raise OverdueError(f"optcheck: it took longer than {self.seconds:g} s; give seconds= for more")


class _Interrupt(BaseException):
    """Not to be caught by what an optimizer catches."""


@contextmanager
def enforced(deadline: Deadline) -> Iterator[None]:
    """Interrupt what is inside at the deadline, where the system and the thread allow it; compiled code goes on."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _Interrupt

    handler = signal.signal(signal.SIGALRM, interrupt)
    began = time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, max(deadline.left(), 1e-3), 0.5)
    try:
        yield
    except _Interrupt:
        raise OverdueError(f"optcheck: the optimizer did not come back within {deadline.seconds:g} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left > 0:  # somebody else's, as of a test's time limit
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 1e-3), interval)
