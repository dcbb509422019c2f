"""Lock a folder, so that only one process at a time writes to it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import lock_descriptor

from nnjax.storage.paths import as_path

LOCK = ".lock"


@contextmanager
def folder_lock(folder: str | Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder. It is released when the process exits, even if it is killed.

    The operating system locks the file `.lock`, which remains in the folder and contains the process ID of its last
    owner. If the file system does not support locks, the folder is not locked.

    Args:
      folder: the folder, which must exist.

    Raises:
      BlockingIOError: if another process holds the lock; the message gives its process ID.

    >>> from pathlib import Path
    >>> from nnjax.storage.lock import folder_lock
    >>> with folder_lock(Path(".")):
    ...     Path("results.csv").touch()
    """
    file = os.open(as_path(folder) / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            free = lock_descriptor(file, blocking=False)
        except OSError:  # the file system does not support locks
            free = True
        if not free:
            os.lseek(file, 1, os.SEEK_SET)  # on Windows, only the owner can read byte 0, so the ID starts at byte 1
            pid = os.read(file, 20).decode(errors="replace").strip()
            raise BlockingIOError(f"{folder} is in use by another process (PID {pid}); wait until it ends or stop it")
        with suppress(OSError):  # the disk may be full
            os.write(file, f" {os.getpid():<20}".encode())
        yield
    finally:
        os.close(file)
