"""Matplotlib panels, and the pages of `jthermo explore` and `jthermo report`. No JAX here."""

from jthermo.figures.colours import colours
from jthermo.figures.panels import (
    band,
    clocks,
    collapse,
    collapses,
    curves,
    heatmap,
    mean_curve,
    residuals,
    theory,
)
from jthermo.figures.style import COLUMN, PAGE, style
from jthermo.figures.svg import save, svg

__all__ = [
    "COLUMN",
    "PAGE",
    "band",
    "clocks",
    "collapse",
    "collapses",
    "colours",
    "curves",
    "heatmap",
    "mean_curve",
    "residuals",
    "save",
    "style",
    "svg",
    "theory",
]
