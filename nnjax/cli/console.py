"""Print output, errors and warnings, and quote values for the shell."""

import shlex
from typing import Any

import jax
from rich.console import Console
from rich.markup import escape

console = Console(stderr=False, highlight=False)
ERROR, WARNING = "[bold red]error[/] ", "[bold yellow]warning[/] "  # labels of `complain`


def say(text: str) -> None:
    """Print a line with markup, without wrapping it, so that it can be copied. Only the first process prints."""
    if jax.process_index() == 0:
        console.print(text, soft_wrap=True)


def note(text: str) -> None:
    """Print a line of plain text, labelled as a note."""
    say(f"[bold yellow]note[/] {escape(text)}")


def complain(text: str, label: str = "") -> None:
    """Print a message to standard error. Only the label may contain markup."""
    Console(stderr=True, highlight=False).print(label + escape(text), soft_wrap=True)


def show_warning(message: Warning | str, *_: Any) -> None:
    """Print a warning without its location; replaces `warnings.showwarning`."""
    complain(str(message), WARNING)


def format_score(score: float) -> str:
    """Format a score with four decimals, or with four significant digits if it is large."""
    return f"{score:.4f}" if abs(score) < 1000 else f"{score:.4g}"


def quote(value: Any) -> str:
    """Quote a value as one word of a shell command; floats without a fraction become integers."""
    return shlex.quote(str(int(value) if isinstance(value, float) and value.is_integer() else value))


def option_name(setting: str) -> str:
    """Return the command-line option of a setting: `--learning-rate` for `learning_rate`."""
    return f"--{setting.replace('_', '-')}"
