"""Define what all pictures share: colours by kind of peer, titles, and log axes with plain numbers."""

from typing import Any

from benchmarks.harness.record import LIMIT, OURS
from benchmarks.report.variants import GROUPS

WIDTH = 9.0  # inches; documents show pictures with a width of about 880 pixels
DPI = 160
STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "0.4"}
COLORS = {
    OURS: "black",
    "JAX by hand": "#2f6fb7",
    "JAX libraries": "#3d9a50",
    "PyTorch": "#d9572b",
    "scikit-learn": "#8a5fb5",
    LIMIT: "0.6",
}


def kind_of(peer: str) -> str:
    """Return the kind of a peer: its group, or the peer itself if it is in none, such as `OURS`."""
    return next((kind for kind, peers in GROUPS.items() if peer in peers), peer)


def color_of(peer: str) -> str:
    """Return the colour of a peer, which is the same in all pictures."""
    return COLORS.get(kind_of(peer), "0.6")


def set_titles(figure: Any, title: str, subtitle: str) -> None:
    """Write a title and a grey subtitle into the space above the axes."""
    height = figure.get_size_inches()[1]
    figure.text(0.012, 1 - 0.12 / height, title, fontsize=12, fontweight="bold", va="top")
    figure.text(0.012, 1 - 0.36 / height, subtitle, fontsize=8.5, color="0.35", va="top", linespacing=1.4)


def use_plain_numbers(axis: Any, subs: tuple[int, ...] = (1, 2, 5)) -> None:
    """Label a logarithmic axis with plain numbers instead of powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
