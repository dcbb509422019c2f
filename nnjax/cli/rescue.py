"""Write a run, a sweep or a search to another folder if its own folder is not writable."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from nnjax.cli import run_folder
from nnjax.storage.paths import write_elsewhere

T = TypeVar("T")
SaveSettings = Callable[[Path], None]


def write_results(path: Path, write: Callable[[Path], T], save_settings: SaveSettings) -> tuple[Path, T]:
    """Write the results to the folder, or to another one if the folder is not writable.

    Args:
      path: folder of the run, the sweep or the search.
      write: function that writes the results to a folder.
      save_settings: function that writes the settings to a folder.

    Returns:
      The folder that contains the results, and the return value of `write`.

    Raises:
      OSError: if no folder is writable.

    Warns:
      UserWarning: if the results are written to another folder.
    """
    try:
        return path, write(path)
    except OSError as error:

        def write_all(new_folder: Path) -> T:
            save_settings(new_folder)
            return write(new_folder)

        try:
            new_folder, written = write_elsewhere(path, write_all)
        except OSError:
            raise error from None
        warnings.warn(
            f"{path} cannot be written to ({error}), so the results are written to {new_folder}", stacklevel=2
        )
        return new_folder, written


def folder_to_resume(path: Path, checkpoints: Path | None, save_settings: SaveSettings) -> Path:
    """Return the folder from which an interrupted run, sweep or search can be resumed.

    Args:
      path: folder of the run, the sweep or the search.
      checkpoints: folder of the last checkpoint, if any. If it is outside `path`, it is moved to a new folder.
      save_settings: function that writes the settings to a folder.
    """
    if checkpoints is None or checkpoints.absolute().is_relative_to(path.absolute()):
        return path

    def write(new_folder: Path) -> None:
        save_settings(new_folder)
        shutil.copytree(checkpoints, new_folder / run_folder.CHECKPOINTS)

    new_folder, _ = write_elsewhere(path, write)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return new_folder
