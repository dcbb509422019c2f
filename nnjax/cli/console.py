"""Print lines of output, errors and warnings, and quote values for the shell."""

import shlex
from typing import Any

import jax
from rich.console import Console
from rich.markup import escape

console = Console(stderr=False, highlight=False)
ERROR, WARNING = "[bold red]error[/] ", "[bold yellow]warning[/] "  # labels of `complain`


def say(text: str) -> None:
    """Print a line with markup, unwrapped so that it can be copied. With several processes, only the first prints."""
    if jax.process_index() == 0:
        console.print(text, soft_wrap=True)


def complain(text: str, label: str = "") -> None:
    """Print a message on standard error. Only the label may contain markup."""
    Console(stderr=True, highlight=False).print(label + escape(text), soft_wrap=True)


def show_warning(message: Warning | str, *_: Any) -> None:
    """Print a warning as one line, in place of `warnings.showwarning`."""
    complain(str(message), WARNING)


def quote(value: Any) -> str:
    """Return the value as a word of a shell command."""
    return shlex.quote(str(int(value) if isinstance(value, float) and value.is_integer() else value))


def option_name(setting: str) -> str:
    """Return the option that sets a value: `learning_rate` is `--learning-rate`."""
    return f"--{setting.replace('_', '-')}"
