"""Write messages as annotations of GitHub Actions."""


def annotation(level: str, file: str, line: int, message: str) -> str:
    """Return a workflow command that shows a message at a line of a file.

    Args:
      level: "error", "warning" or "notice".
      file: the path of the file; "" for none.
      line: the line, from 1.
      message: the text; line breaks and percent signs are escaped as GitHub asks for.
    """
    place = f" file={_escape(file, ',:')},line={line}" if file else ""
    return f"::{level}{place}::{_escape(message, '')}"


def _escape(text: str, more: str) -> str:
    for char in ("%", "\r", "\n", *more):
        text = text.replace(char, f"%{ord(char):02X}")
    return text
