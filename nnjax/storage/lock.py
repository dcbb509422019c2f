"""One process at a time in a folder."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While it lasts, no other process gets the folder; the lock of one that is killed ends with it.

    Raises:
      BlockingIOError: where another process has it, with its number.
    """
    if sys.platform == "win32":
        yield
        return
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.read(file, 20).decode(errors="replace")
            raise BlockingIOError(
                f"another process ({who}) is training in {folder}; wait for its end, or stop it"
            ) from None
        except OSError:  # a file system that knows no locks
            pass
        with suppress(OSError):  # a full disk
            os.ftruncate(file, 0)
            os.write(file, str(os.getpid()).encode())
        yield
    finally:
        os.close(file)
