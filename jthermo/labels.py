"""How quantities are written in figures, pages and tables."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axis import Axis

# Symbols of the time and of controls.
SYMBOL = {"step": "t", "learning_rate": "η", "batch_size": "|B|", "data.redraw": "p"}
# Characters per line and lines of the label of a panel's axis: what fits along 2.2 inches at 8 pt.
WIDTH, LINES = 30, 3


def symbol(name: str) -> str:
    """The symbol of a control, or its name.

    >>> symbol("learning_rate"), symbol("dose")
    ('η', 'dose')
    """
    return plain(SYMBOL.get(name, name))


def wrapped(text: str) -> str:
    """A description in lines that fit along the axis of a panel; a long one is cut short.

    >>> print(wrapped("fraction of active hidden units, mean over the probe"))
    fraction of active hidden
    units, mean over the probe
    """
    return plain("\n".join(textwrap.wrap(text, WIDTH, max_lines=LINES, placeholder=" …")))


def plain(text: str) -> str:
    """A text that Matplotlib draws as it is: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def log_ticks(axis: Axis) -> None:
    """Minor labels that don't overlap in a narrow panel, on a logarithmic axis below one decade.

    They are at 2 and 5 only; Matplotlib's own are at 2, 3, 4 and 6, or at all digits. Below 0.3
    decades, where there may be no 2 and no 5, every tick has its label.
    """
    from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation

    number = LogFormatterSciNotation(minor_thresholds=(math.inf, math.inf))

    def label(value: float, _: int | None) -> str:
        low, high = sorted(axis.get_view_interval())
        decades = math.log10(high / low)
        digit = value / 10 ** math.floor(math.log10(value) + 1e-9)
        if decades > 1 or (decades > 0.3 and round(digit, 6) not in (2, 5)):
            return ""
        return number(value)

    number.create_dummy_axis()
    axis.set_minor_formatter(FuncFormatter(label))
