"""Plot the results of a run. Each function except `png` returns a figure that is not registered with pyplot."""

from nnjax.plot._confusion import confusion
from nnjax.plot._curves import curves
from nnjax.plot._ensemble import ensemble_size, rejection, spread
from nnjax.plot._first_layer import first_layer
from nnjax.plot._function import function
from nnjax.plot._images import mistakes, uncertain
from nnjax.plot._importance import importance
from nnjax.plot._parallel_coordinates import parallel_coordinates
from nnjax.plot._predictions import predictions, residuals
from nnjax.plot._regions import regions
from nnjax.plot._reliability import reliability
from nnjax.plot._repetition import repetition
from nnjax.plot._search import search, search_progress
from nnjax.plot._search_importance import search_importance
from nnjax.plot._style import png
from nnjax.plot._surface import surface
from nnjax.plot._sweep import sweep

__all__ = [
    "confusion", "curves", "ensemble_size", "first_layer", "function", "importance", "mistakes",
    "parallel_coordinates", "png", "predictions", "regions", "rejection", "reliability", "repetition", "residuals",
    "search", "search_importance", "search_progress", "spread", "surface", "sweep", "uncertain",
]  # fmt: skip
