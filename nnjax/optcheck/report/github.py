"""Format messages as annotations for GitHub Actions."""


def annotation(level: str, file: str, line: int, message: str) -> str:
    """Return a workflow command that attaches a message to a line of a file.

    Args:
      level: "error", "warning" or "notice".
      file: the path of the file; "" for a message without a file.
      line: the line number, counted from 1.
      message: the text; line breaks and percent signs are escaped as GitHub requires.
    """
    place = f" file={_escape(file, ',:')},line={line}" if file else ""
    return f"::{level}{place}::{_escape(message, '')}"


def _escape(text: str, more: str) -> str:
    for char in ("%", "\r", "\n", *more):
        text = text.replace(char, f"%{ord(char):02X}")
    return text
