"""Ctrl-C and SIGTERM, held back until the chunk is done."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """While it lasts, the first Ctrl-C or SIGTERM is only noted; the second takes effect at once.

    Gives a function that tells whether there was one. In other threads than the main one signals stay as they are, and
    so do those that are ignored, as Ctrl-C is by a script's background job.
    """
    noted = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal noted
        if noted:
            raise KeyboardInterrupt
        noted = True

    heeded = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield lambda: noted
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: one that was not set by Python, and that Python cannot set again
                signal.signal(number, handler)
