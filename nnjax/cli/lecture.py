"""`nnjax lecture`: run the ideas of the lecture notes, and show them in the terminal and as an HTML page."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from nnjax import checks
from nnjax.cli import options as o
from nnjax.cli.console import console, say
from nnjax.storage.atomic_write import write_file

if TYPE_CHECKING:
    from nnjax.lecture.idea import Idea
    from nnjax.lecture.section import Section

CODE_THEME = "ansi_light"  # uses the terminal's own colours


def lecture_command(
    idea: Annotated[
        str | None, typer.Argument(metavar="IDEA", help="A single idea, such as softmax. Default: all ideas.")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="List the ideas and exit.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=o.path,
            help="HTML file to write. Default: lecture.html, or lecture-IDEA.html for a single idea.",
        ),
    ] = None,
) -> None:
    """Demonstrate the ideas of the lecture notes "Intro to Deep Learning", one by one.

    For each idea, the command prints an explanation in three sentences, the
    code that runs it with this library, and its numerical results. All of
    this is also written, with pictures, to one HTML page that works offline.

    For example: nnjax lecture gradient-descent
    """
    from nnjax.lecture import IDEAS, PARTS
    from nnjax.lecture.page import GENERATOR, make_page
    from nnjax.lecture.section import run_sections

    if show_list:
        _print_list(PARTS)
        return
    if idea is not None:
        idea = idea.lower().replace("_", "-")
        checks.one_of("lecture", "idea", idea, tuple(IDEAS))
    path = out or Path("lecture.html" if idea is None else f"lecture-{idea}.html")
    _check_page(path, GENERATOR)
    selection = [other for other in IDEAS.values() if idea in (None, other.name)]
    sections = {}
    for section in run_sections(selection):
        sections[section.idea.name] = section
        _print_section(section)
    parts = {part: [sections[i.name] for i in ideas if i.name in sections] for part, ideas in PARTS.items()}
    page = make_page({part: sections_of_part for part, sections_of_part in parts.items() if sections_of_part})
    write_file(path, page.encode())
    say(f"pictures written to {escape(str(path))}; open it in a browser")


def _check_page(path: Path, generator: str) -> None:
    """Check that the page can be written and would not replace a file of another program."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file, such as --out {path / 'lecture.html'}")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"the folder {path.parent} does not exist or is not writable; choose another one with --out")
    if path.exists() and generator not in path.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(f"{path} exists and was not written by nnjax lecture; choose another file with --out")


def _print_list(parts: "Mapping[str, list[Idea]]") -> None:
    for part, ideas in parts.items():
        say(f"[bold]{part}[/]")
        for idea in ideas:
            say(f"  {idea.name:24s} {escape(idea.title.partition(': ')[2] or idea.title)}")


def _print_section(section: "Section") -> None:
    from rich.padding import Padding
    from rich.syntax import Syntax
    from rich.table import Table

    idea = section.idea
    console.rule(f"[bold]{escape(idea.title)}[/]", align="left")
    console.print(f"\n{escape(idea.text)}\n")
    console.print(Padding(f"[italic]{escape(idea.formula)}[/]", (0, 0, 1, 4)))
    code = Syntax(section.code, "python", theme=CODE_THEME, background_color="default")
    console.print(code.highlight(section.code), soft_wrap=True)  # without wrapping, for copying
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    for name, value in section.numbers.items():
        table.add_row(escape(name), escape(value))
    console.print()
    console.print(table)
    console.print()
