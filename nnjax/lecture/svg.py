"""Convert figures to SVG elements that use the page's font and CSS colours.

Pictures therefore follow the reader's light or dark mode, and their text can be searched.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from nnjax.lecture.style import BLUE, GREEN, GREY, INK, PAPER, PURPLE, RED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "blue": BLUE,
    "red": RED,
    "green": GREEN,
    "purple": PURPLE,
    "grey": GREY,
    "ink": INK,
    "paper": PAPER,
}


def svg(figure: Figure, name: str) -> str:
    """Return a figure as an SVG element for a page, in the page's font and colours.

    Args:
      figure: the figure; it must be drawn and saved inside `style.drawing`.
      name: prefix of the identifiers in the SVG, different for each figure of the page.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid=")', rf"\g<1>{name}-", text)
    text = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font(-family)?:([^;\"]*?)'DejaVu Sans'[^;\"]*", _inherited, text)
    for colour, value in COLOURS.items():
        text = text.replace(value, f"var(--{colour})")
    return re.sub(r' (width|height)="[\d.]+pt"', "", text)  # the page sets the size


def _inherited(match: re.Match[str]) -> str:
    return f"font{match[1] or ''}:{match[2]}var(--sans)"
