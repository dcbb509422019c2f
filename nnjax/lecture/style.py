"""Define the common style of all pictures in the lecture.

A picture is a list of small panels; each panel is a figure. The page puts them side by
side, or one below the other on a narrow screen. The colours are from Paul Tol's palette,
which colour-blind readers can distinguish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

BLUE, RED, GREEN, PURPLE, GREY = "#4477aa", "#ee6677", "#228833", "#aa3377", "#999999"
INK, PAPER = "#23262b", "#fdfcf9"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

SETTINGS: dict[str, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "legend.fontsize": 8,
    "legend.facecolor": PAPER,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.8,
    "legend.borderpad": 0.2,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",  # keep text as text, in the page's font
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """Apply the common style to everything that is drawn inside the block.

    Args:
      name: name of the idea, used to generate the identifiers inside the SVG.

    Raises:
      ModuleNotFoundError: if matplotlib is missing.
    """
    try:
        import matplotlib as mpl
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "nnjax.lecture needs matplotlib: pip install 'nnjax[cli]'"
        ) from error

    settings: Any = {**SETTINGS, "svg.hashsalt": name}
    with mpl.rc_context(settings):
        yield


def panels(count: int, width: float = 3.4, height: float = 2.7) -> list[Axes]:
    """Return the axes of new panels, each in its own figure, with sizes in inches."""
    from matplotlib.figure import Figure

    return [
        Figure(figsize=(width, height), layout="constrained").subplots()
        for _ in range(count)
    ]


def log_axis(axis: Axis) -> None:
    """Make an axis logarithmic, with powers of ten as plain text: 10⁻², 1, 10²."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    setting = axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale
    setting("log")
    axis.set_major_locator(LogLocator(numticks=6))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _power_of_ten(value)))


def _power_of_ten(value: float) -> str:
    exponent = round(float(np.log10(value)))
    return {0: "1", 1: "10"}.get(exponent, "10" + str(exponent).translate(SUPERSCRIPTS))


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Set the title and axis labels of a panel."""
    axes.set(title=title, xlabel=x, ylabel=y)


def minus(number: float) -> str:
    """Return a number as text, with four digits and a minus sign instead of a hyphen."""
    return f"{number:.4g}".replace("-", "−")


def signs(numbers: Any) -> Any:
    """Return the colour of each number: blue if it is positive, otherwise red."""
    return np.where(np.asarray(numbers) > 0, BLUE, RED).tolist()


def rectangle(
    axes: Axes, corner: tuple[float, float], width: float, height: float, **look: Any
) -> None:
    """Draw a rectangle with the given lower left corner, width and height."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle(corner, width, height, **look))


def map_axes(axes: Axes) -> None:
    """Hide the axes and give both the same scale, for a diagram."""
    axes.set_aspect("equal")
    axes.set_axis_off()


def contours(
    axes: Axes,
    function: Callable[[Any], Any],
    x: np.ndarray,
    y: np.ndarray,
    levels: Any,
) -> None:
    """Draw contour lines of a function of two variables.

    Args:
      axes: the panel.
      function: function that maps an array (2,) to a number.
      x: values of the first number, of shape (columns,).
      y: values of the second number, of shape (rows,).
      levels: values of the function at which lines are drawn.
    """
    grid = np.stack(np.meshgrid(x, y), -1).astype(np.float32)
    values = jax.jit(jax.vmap(jax.vmap(function)))(grid)
    axes.contour(x, y, values, levels, colors=GREY, linewidths=0.6, zorder=0)
