"""Paths of files, and files that are opened only if reading them ends."""

import os
import stat
from io import BufferedReader
from pathlib import Path


def as_path(path: str | Path) -> Path:
    """Return the path with a leading `~` replaced by the home folder.

    >>> from nnjax.storage.regular_file import as_path
    >>> as_path("~/runs") == Path.home() / "runs"
    True
    """
    return Path(os.path.expanduser(path))  # Path.expanduser raises for unknown users


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading. Opening a pipe or a device could block forever.

    Raises:
      FileNotFoundError: if there is no file.
      ValueError: if the path is a folder, a pipe, a socket or a device.
      OSError: if the file cannot be opened, for example for a loop of symbolic links.
    """
    opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise ValueError(f"{path} is not a regular file; expected a file, not a folder, a pipe or a device")
    return os.fdopen(opened, "rb")
