"""Make standard output and standard error tolerant: drop failed writes, and replace unsupported characters."""

import codecs
import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

SIMILAR = {"×": "x", "±": "+-", "…": "...", "µ": "u", "μ": "u", "≥": ">=", "≤": "<=", "→": "->", "·": "*", "–": "-"}
TRANSLITERATE = "nnjax.transliterate"  # name of the codec error handler


class _Raw(io.RawIOBase):
    """A stream that drops its data if the underlying pipe, file or terminal cannot be written to."""

    def __init__(self, raw: Any):
        self._raw = raw

    def write(self, data: Any) -> int:
        with suppress(OSError, ValueError):  # ValueError: the stream is closed
            count = self._raw.write(data)
            return len(data) if count is None else int(count)
        return len(data)

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        with suppress(OSError, ValueError):
            return bool(self._raw.isatty())
        return False

    def writable(self) -> bool:
        return True


@contextmanager
def tolerant_output() -> Iterator[None]:
    """Ignore failed writes to standard output and standard error inside the block.

    Closed descriptors are first opened on the null device. Otherwise, the next opened file would get the number of a
    closed descriptor, and libraries would write their output into that file.
    """
    codecs.register_error(TRANSLITERATE, _transliterate)
    for descriptor in (0, 1, 2):
        _open_if_closed(descriptor)
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_tolerant(stream, number) for number, stream in enumerate(streams, start=1))
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = streams


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)


def _tolerant(stream: Any, descriptor: int) -> Any:
    """Return a tolerant stream to the same file, or the stream itself if it has no file, as in a notebook.

    The stream is flushed after each line, also for a pipe or a file, so that progress is visible immediately.
    """
    if stream is None:  # the descriptor was closed when Python started
        return _text(io.FileIO(descriptor, "w", closefd=False), encoding="utf-8")
    try:
        stream.fileno()
        raw = getattr(stream.buffer, "raw", stream.buffer)
    except (AttributeError, OSError, ValueError):
        return stream
    return _text(raw, stream.encoding)


def _text(raw: Any, encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(_Raw(raw)), encoding=encoding, errors=TRANSLITERATE, line_buffering=True)


def _transliterate(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks with similar ASCII characters, such as × with x."""
    assert isinstance(error, UnicodeEncodeError)
    letters = error.object[error.start : error.end]
    return "".join(SIMILAR.get(letter) or _ascii(letter) for letter in letters), error.end


def _ascii(letter: str) -> str:
    return unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode() or "?"
