"""Build a self-contained HTML page without scripts, with a layout for phones and a dark mode."""

import base64
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

WIDE = 900  # pixels; wider pictures span both columns, and scroll on narrow screens
SHORT = 12  # characters; columns of single words up to this length are not broken
STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --faint: #59636e; --page: #ffffff; --card: #f6f8fa; --line: #d1d9e0;
        --accent: #33618f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --faint: #9aa4ae; --page: #14181d; --card: #1d232b; --line: #38414b; --accent: #8ab8e6; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 1120px; background: var(--page); color: var(--ink);
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.2rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 0.6rem; padding-bottom: 0.2rem; border-bottom: 1px solid var(--line); }
p { margin: 0.4rem 0; max-width: 72ch; overflow-wrap: anywhere; }
.faint { color: var(--faint); }
.columns { display: grid; gap: 0 2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
.columns > section { min-width: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 0.93rem; }
th, td { padding: 0.28rem 0.6rem 0.28rem 0; text-align: left; border-bottom: 1px solid var(--line);
         vertical-align: top; }
th { color: var(--faint); font-weight: 600; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.text { overflow-wrap: anywhere; white-space: pre-wrap; }
td.short, th.short { white-space: nowrap; }
tr.strong td { font-weight: 600; }
.pictures { columns: 2 440px; column-gap: 1.2rem; }
figure { margin: 0 0 1.2rem; break-inside: avoid; background: var(--card); border: 1px solid var(--line);
         border-radius: 8px; overflow: hidden; }
figure.wide { column-span: all; margin-top: 1.2rem; }
figure img { display: block; width: 100%; height: auto; background: #ffffff; }
figcaption { padding: 0.6rem 0.8rem 0.7rem; font-size: 0.9rem; color: var(--faint); }
.word { white-space: nowrap; }
code { font: 0.9em ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
@media (max-width: 480px) { body { padding: 0.8rem; } h1 { font-size: 1.3rem; } }
"""


def page(title: str, body: Iterable[str]) -> bytes:
    """Return the page as bytes, from a title in plain text and the parts of the body in HTML."""
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n'
    )
    return (head + "\n".join(body) + "\n</body>\n</html>\n").encode(errors="replace")


def header(title: str, *lines: str) -> str:
    """Return the HTML of the page's header, with the title and a paragraph for each line."""
    return "\n".join(
        ["<header>", f"<h1>{escape(title)}</h1>", *(paragraph(line, faint=True) for line in lines), "</header>"]
    )


def section(title: str, *parts: str) -> str:
    """Return the HTML of a section with a heading and the non-empty parts, or "" if all parts are empty."""
    content = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def paragraph(text: str, *, faint: bool = False) -> str:
    """Return the HTML of a paragraph of text."""
    return f"<p{' class=faint' if faint else ''}>{_keep_words(text)}</p>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, strong: Iterable[int] = ()) -> str:
    """Return the HTML of a table of strings, or "" if there are no rows.

    If there is a header, columns of numbers except the first column are right-aligned.

    Args:
      header: column names; empty for a table without a header.
      rows: the cells of each row.
      strong: indices of the rows to emphasise.
    """
    if not rows:
        return ""
    kinds = [_kind([row[i] for row in rows], first=i == 0 or not header) for i in range(len(rows[0]))]

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f'<{tag} class="{kind}">{escape(cell)}</{tag}>' for kind, cell in zip(kinds, row, strict=True))

    emphasised = set(strong)
    top = f"<thead><tr>{cells('th', header)}</tr></thead>\n" if header else ""
    body = "\n".join(
        f"<tr{' class=strong' if i in emphasised else ''}>{cells('td', row)}</tr>" for i, row in enumerate(rows)
    )
    return f'<div class="scroll"><table>\n{top}<tbody>\n{body}\n</tbody></table></div>'


def number(value: Any) -> str:
    """Format a score with four decimals, or four significant digits if it is large; a dash if None or not finite.

    >>> from nnjax.cli import html_page
    >>> [html_page.number(value) for value in (0.5, 1234.5, 12345.6, None)]
    ['0.5000', '1,234', '1.235e+04', '–']
    """
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.4g}"


def commands(rows: Sequence[tuple[str, str]]) -> str:
    """Return the HTML of a table of commands and their descriptions."""
    body = "\n".join(
        f'<tr><td class="text"><code>{_keep_words(command)}</code></td><td class="text">{escape(purpose)}</td></tr>'
        for command, purpose in rows
    )
    return f'<div class="scroll"><table>\n<tbody>\n{body}\n</tbody></table></div>'


def version_line(versions: Mapping[str, str]) -> str:
    """Return the HTML of a paragraph with the versions of the packages."""
    return paragraph(f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}.", faint=True)


def columns(*sections: str) -> str:
    """Return the HTML of sections that appear side by side if the screen is wide enough."""
    return '<div class="columns">\n' + "\n".join(part for part in sections if part) + "\n</div>"


def pictures(images: Iterable[tuple[str, bytes, str]]) -> str:
    """Return the HTML of figures, the wide ones last, or "" if there are none.

    Args:
      images: the name, the PNG content and the caption of each figure.
    """
    figures: list[str] = []
    wide: list[str] = []
    for name, png, caption in images:
        width, height = (int.from_bytes(png[place : place + 4]) for place in (16, 20))
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        kind, least = ("", "") if width <= WIDE else (" class=wide", f' style="min-width: {width // 2}px"')
        (wide if kind else figures).append(
            f'<figure id="{escape(name)}"{kind}>\n<div class="scroll"><img src="{source}" alt="{escape(caption)}" '
            f'width="{width}" height="{height}"{least}></div>\n'
            f"<figcaption>{_keep_words(caption)}</figcaption>\n</figure>"
        )
    return '<div class="pictures">\n' + "\n".join(figures + wide) + "\n</div>" if figures or wide else ""


def _keep_words(text: str) -> str:
    """Escape a text. Its lines do not break at the hyphens of options and numbers, as in --learning-rate and 1e-4."""
    return re.sub(r"(?<!\S)[-\d]\S{0,20}-\S{1,20}(?!\S)", r'<span class="word">\g<0></span>', escape(text))


def _kind(cells: Sequence[str], *, first: bool) -> str:
    """Return the kind of a column: "number", "short" for words that must not be broken, or "text"."""
    if not first and all(map(_is_number, cells)):
        return "number"
    return "short" if not first and max(map(len, cells)) <= SHORT and not any(" " in cell for cell in cells) else "text"


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ""))
    except ValueError:
        return cell in ("", "–")
    return True
