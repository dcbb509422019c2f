"""Defer Ctrl-C, SIGTERM and SIGHUP until the current chunk is done."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], bool]]:
    """Record the first Ctrl-C, SIGTERM or SIGHUP; a second Ctrl-C or SIGTERM raises KeyboardInterrupt at once.

    A closing terminal sends SIGHUP, and some service managers send it with SIGTERM, so a second SIGHUP never raises.

    Yields a function that returns True if a signal was recorded. Outside the main thread, no signal is recorded.
    Signals that are ignored stay ignored (a shell's background job ignores Ctrl-C).
    """
    received = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal received
        if received and number != hangup:
            raise KeyboardInterrupt
        received = True

    hangup = getattr(signal, "SIGHUP", None)  # Windows has no SIGHUP
    ending = [signal.SIGINT, signal.SIGTERM] + ([] if hangup is None else [hangup])
    handled = [number for number in ending if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, handle) for number in handled}
    try:
        yield lambda: received
    finally:
        for number, handler in previous.items():
            if handler is not None:  # None: the handler was not installed from Python and cannot be restored
                signal.signal(number, handler)
