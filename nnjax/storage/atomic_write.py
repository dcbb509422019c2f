"""Write files atomically, that is, completely or not at all."""

import csv
import errno
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nnjax.storage.paths import as_path


def write_file(path: str | Path, *content: bytes | memoryview) -> None:
    """Write a file atomically: write and sync a temporary file, rename it, and sync the folder.

    Args:
      path: path of the file. An existing file is replaced.
      content: one or more byte strings, which are written one after another.

    Raises:
      OSError: if writing fails; a note gives the path and the number of bytes. An existing file stays intact.
    """
    path = as_path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            for part in content:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:  # including Ctrl-C
        with suppress(OSError):
            temporary.unlink()
        error.add_note(f"while writing {sum(map(len, content))} bytes to {path}")
        raise


def write_json(path: str | Path, content: Any) -> None:
    """Write plain values as JSON. NaN and infinities become null, because JSON cannot represent them."""
    text = json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_file(path, text.encode(errors="backslashreplace"))  # a file name with invalid bytes becomes \udc80 in JSON


def write_records(path: str | Path, records: Sequence[Mapping[str, Any]], *, quote_texts: bool = False) -> None:
    """Write records as CSV, one per line, with a column for every name that occurs in any record.

    Args:
      path: path of the file. An existing file is replaced.
      records: dictionaries from column name to value.
      quote_texts: True to quote all strings, which distinguishes a string such as NA from a missing value.
    """
    names = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO()
    quoting: Any = csv.QUOTE_NONNUMERIC if quote_texts else csv.QUOTE_MINIMAL
    writer = csv.DictWriter(text, names, lineterminator="\n", quoting=quoting)
    writer.writeheader()
    writer.writerows(records)
    write_file(path, text.getvalue().encode())


def finite(content: Any) -> Any:
    """Return plain values with NaN and infinities replaced with None, and tuples with lists."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {name: finite(value) for name, value in content.items()}
    return [finite(value) for value in content] if isinstance(content, list | tuple) else content


def _sync_folder(path: Path) -> None:
    """Sync a folder, so that a power failure cannot undo a rename in it."""
    try:
        folder = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows cannot open folders
        return
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync folders
            raise
    finally:
        os.close(folder)
