"""Paths that users write, files whose reading ends, and folders that replace others."""

import os
import stat
import tempfile
from io import BufferedReader
from pathlib import Path


def as_path(path: str | Path) -> Path:
    """Return the path with a leading `~` replaced by the home folder.

    >>> from nnjax.storage.paths import as_path
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
        raise ValueError(f"{path} is a folder, a pipe or a device, expected a regular file")
    return os.fdopen(opened, "rb")


def spare_folder(folder: Path) -> Path:
    """Create a folder that replaces one that cannot be written: next to it, or else in the system's temporary folder.

    Raises:
      OSError: if both places cannot be written.
    """
    for place in (folder.absolute().parent, Path(tempfile.gettempdir())):
        try:
            return Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=place))
        except OSError as error:
            last = error
    raise last
