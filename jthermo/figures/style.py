"""The style of all figures: sizes, fonts, symbols."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from jthermo.figures.colours import CATEGORIES

# Width in inches of one journal column and of two.
COLUMN, PAGE = 3.4, 7.0


STYLE: dict[Any, Any] = {
    "figure.figsize": (COLUMN, 2.4),
    "figure.dpi": 200,
    "figure.constrained_layout.use": True,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.prop_cycle": f"cycler('color', {CATEGORIES})",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.minor.size": 1.6,
    "ytick.minor.size": 1.6,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    # embed TrueType fonts, so that text stays text
    "pdf.fonttype": 42,
    # fixed element ids: the same figure gives the same file
    "svg.hashsalt": "jthermo",
}


def style() -> AbstractContextManager[None]:
    """A context manager with jthermo's Matplotlib settings.

    Figures are one journal column (3.4 in) wide, text has 8 pt, and colour-blind readers can tell
    the colours apart. ``jt.figures.COLUMN`` and ``jt.figures.PAGE`` are the widths of one column
    and of two, in inches.

    >>> import matplotlib.pyplot as plt, jthermo as jt
    >>> with jt.figures.style():
    ...     ax = plt.subplots()[1]
    >>> ax.figure.get_size_inches().tolist(), ax.xaxis.label.get_size()
    ([3.4, 2.4], 8.0)
    >>> plt.close("all")
    """
    import matplotlib.pyplot as plt

    return plt.rc_context(STYLE)
