"""Define the common style of all plots: size, header, colours and axes."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure

TRAIN, HELD_OUT, NEUTRAL = "#4477aa", "#ee6677", "#bbbbbb"  # Paul Tol's palette, distinguishable by the colour-blind
QUALITATIVE = [
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#bbbbbb",
    "#222222",
    "#ee9944",
    "#88aa55",
]
INK, FAINT = "#222222", "#666666"
WIDTH = 5.0  # width of most plots in inches: one column, readable on a phone
DPI = 150
SMALL = 8.0  # font size in points
HEADLINE, CONTEXT = 52, 90  # characters per line of the two texts, at width WIDTH
LINE = 0.155  # height of a line in inches


def new_figure(height: float, headline: str, context: str = "", *, width: float = WIDTH) -> Figure:
    """Return a new figure with a header. It is not registered with pyplot and need not be closed.

    Args:
      height: height in inches, without the header.
      headline: subject of the plot, in bold.
      context: data, settings and score, below in a smaller font; may be empty.
      width: width in inches.

    Raises:
      ModuleNotFoundError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("nnjax.plot needs matplotlib: pip install 'nnjax[cli]'") from error

    bold = textwrap.wrap(plain(headline), int(HEADLINE * width / WIDTH))
    small = textwrap.wrap(plain(context), int(CONTEXT * width / WIDTH))
    header = 0.1 + 0.19 * len(bold) + LINE * len(small) + 0.05
    total = height + header
    figure = Figure(figsize=(width, total), layout="constrained")
    layout = figure.get_layout_engine()
    assert layout is not None
    layout.set(rect=(0, 0, 1, height / total))  # type: ignore[call-arg]
    top = 1 - 0.08 / total
    figure.text(0.015, top, "\n".join(bold), va="top", fontsize=10.5, fontweight="bold", color=INK)
    below = top - 0.2 * len(bold) / total
    figure.text(0.015, below, "\n".join(small), va="top", fontsize=7.5, color=FAINT)
    return figure


def style(axes: Axes, *, grid: bool = True) -> None:
    """Apply the common style to axes: no frame at the top and on the right, a faint grid, a small font."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL, which="both")
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    for axis in (axes.xaxis, axes.yaxis):
        whole_numbers(axis)
    if grid:
        axes.grid(color="#e6e6e6", linewidth=0.6)
        axes.set_axisbelow(True)


def whole_numbers(axis: Axis) -> None:
    """Write the exponent at each tick of a linear axis, as in 2e9.

    Matplotlib's common factor above the axis would overlap the legend.
    """
    from matplotlib.ticker import FuncFormatter, ScalarFormatter

    if isinstance(axis.get_major_formatter(), ScalarFormatter) and axis.get_scale() == "linear":
        axis.set_major_formatter(FuncFormatter(lambda x, _: tick_label(x, axis.get_majorticklocs())))


def tick_label(x: float, ticks: np.ndarray) -> str:
    """Return the label of a tick, with enough decimals to distinguish it from the other ticks (n,).

    >>> from nnjax.plot._style import tick_label
    >>> [tick_label(x, np.array([-2.5e9, 0, 2.5e9])) for x in (-2.5e9, 0)]
    ['−2.5e9', '0']
    >>> tick_label(2, np.array([1.5, 2]))
    '2.0'
    """
    largest = float(np.abs(ticks).max(initial=0.0))
    if x == 0 or largest == 0:
        return "0"
    exponent = 0 if 1e-3 <= largest < 1e6 else math.floor(math.log10(largest))
    scaled = ticks / 10.0**exponent
    decimals = next((d for d in range(8) if np.allclose(scaled, scaled.round(d), rtol=0, atol=1e-9)), 8)
    text = f"{x / 10.0**exponent:.{decimals}f}" + (f"e{exponent}" if exponent else "")
    return text.replace("-", "\N{MINUS SIGN}")


def legend(axes: Axes, *, columns: int = 1) -> None:
    """Draw the legend above the axes, so that it does not hide data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles, labels, frameon=False, fontsize=SMALL, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns,
            borderaxespad=0.2, handlelength=1.6, columnspacing=1.2,
        )  # fmt: skip


def legend_below(figure: Figure, axes: Axes) -> None:
    """Draw the legend of the axes below the figure, in as few rows as fit into its width."""
    handles, labels = axes.get_legend_handles_labels()
    for columns in range(len(labels), 0, -1):
        box = figure.legend(
            handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=SMALL,
            columnspacing=1.2, handletextpad=0.4,
        )  # fmt: skip
        if box.get_window_extent().width <= figure.bbox.width:
            return
        if columns > 1:
            box.remove()


def label_bar(bar: Colorbar, label: str) -> None:
    """Label a colour bar in the common style."""
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=SMALL, which="both")


def share_axis(axes: Axes, values: np.ndarray, dimension: str = "y") -> None:
    """Limit an axis of shares to the range of the finite values plus a margin, clipped to [0, 1]."""
    finite = np.asarray(values, float)[np.isfinite(values)]
    if not finite.size:
        finite = np.array([0.0, 1.0])
    low, high = float(finite.min()), float(finite.max())
    margin = max(0.06 * (high - low), 0.005)
    limits = max(0.0, low - margin), min(1.0, high + margin)
    (axes.set_ylim if dimension == "y" else axes.set_xlim)(*limits)


def wilson_interval(share: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % confidence interval of shares, each measured on n examples.

    Source: Wilson 1927. Unlike the normal interval, it stays within 0 and 1, and is accurate for few examples.
    """
    z = 1.96
    share, n = np.asarray(share, float), np.maximum(np.asarray(n, float), 1e-9)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(np.clip(share * (1 - share), 0, None) / n + z**2 / (4 * n**2))
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def plain(text: str) -> str:
    """Escape dollar signs, which would start a formula."""
    return text.replace("$", r"\$")


def shorten(text: str, most: int) -> str:
    """Shorten a text to at most `most` characters, keeping both ends, and escape dollar signs."""
    text = " ".join(text.split()) or text
    end = most // 3
    return plain(text if len(text) <= most else f"{text[: most - end - 1]}…{text[-end:]}")


def png(figure: Figure) -> bytes:
    """Return the figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Missing characters are drawn as boxes; a warning for each would fill the terminal
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
