"""The results folder: its layout, writing, reading, and tables for analysis."""

from jthermo.results.reading import open_results
from jthermo.results.tables import axes_of, export, grid, num_diverged, select, tau, tidy, variable

__all__ = [
    "axes_of",
    "export",
    "grid",
    "num_diverged",
    "open_results",
    "select",
    "tau",
    "tidy",
    "variable",
]
