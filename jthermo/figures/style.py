"""The look of all figures: sizes, fonts, symbols."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from jthermo.figures.colours import CATEGORIES

# widths in inches, of one column and of two
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
    # letters stay letters
    "pdf.fonttype": 42,
    # one figure, one file
    "svg.hashsalt": "jthermo",
}


SYMBOL = {"learning_rate": "η", "batch_size": "B", "data.redraw": "p"}


def style() -> AbstractContextManager[None]:
    """The house's matplotlib settings, for a ``with``: a journal column of 3.4 in, 8 pt, colours that colour-blind readers
    tell apart. ``jt.figures.COLUMN`` and ``PAGE`` are the widths of one column and two.

    >>> import matplotlib.pyplot as plt, jthermo as jt
    >>> with jt.figures.style():
    ...     ax = plt.subplots()[1]
    >>> ax.figure.get_size_inches().tolist(), ax.xaxis.label.get_size()
    ([3.4, 2.4], 8.0)
    >>> plt.close("all")
    """
    import matplotlib.pyplot as plt

    return plt.rc_context(STYLE)
