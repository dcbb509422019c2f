"""Expand paths, open regular files, and write to a new folder if the original is not writable."""

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def as_path(path: str | Path) -> Path:
    """Return the path with a leading `~` replaced by the home folder.

    >>> from nnjax.storage.paths import as_path
    >>> as_path("~/runs") == Path.home() / "runs"
    True
    """
    return Path(os.path.expanduser(path))  # Path.expanduser raises for unknown users


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; raise for a pipe or device, which could block forever.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: if the path is a folder, a pipe, a socket or a device.
      OSError: if the file cannot be opened, for example because of a loop of symbolic links.
    """
    opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise ValueError(f"{path} is not a regular file, but a folder, a pipe or a device")
    return os.fdopen(opened, "rb")


def write_elsewhere(folder: Path, write: Callable[[Path], T]) -> tuple[Path, T]:
    """Create a replacement for a folder that was deleted, is full or is not writable, and write to it.

    Args:
      folder: the original folder. The new one is next to it or, if that fails, in the system's temporary folder.
      write: function that takes a folder and writes all files to it.

    Returns:
      The new folder and the result of `write`.

    Raises:
      OSError: if neither location is writable.
    """
    error = OSError(f"found no writable folder to replace {folder}")
    for place in (folder.absolute().parent, Path(tempfile.gettempdir())):
        try:
            other = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=place))
        except OSError:
            continue
        try:
            return other, write(other)
        except OSError as failure:
            error = failure
            shutil.rmtree(other, ignore_errors=True)
    raise error
