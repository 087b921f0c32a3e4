"""How quantities are written in figures, pages and tables."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Symbols of the time and of controls.
SYMBOL = {"step": "t", "learning_rate": "η", "batch_size": "|B|", "data.redraw": "p"}
# Characters per line and lines of the label of a panel's axis: what fits along 2.2 inches at 8 pt.
WIDTH, LINES = 30, 3
# Decades of a logarithmic axis up to which minor ticks have labels.
SHORT = 1.2


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


def all_log_ticks(fig: Figure) -> None:
    """:func:`log_ticks` of every logarithmic axis that has Matplotlib's own labels."""
    from matplotlib.ticker import LogFormatterSciNotation

    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatterSciNotation):
                log_ticks(axis)


def log_ticks(axis: Axis) -> None:
    """Labels of a logarithmic axis that don't overlap in a narrow panel.

    Below 1.2 decades, where there may be only one power of ten, they are plain numbers at 1, 2 and
    5; Matplotlib's own are powers of ten, also at 3, 4 and 6. Below 0.3 decades, where there may be
    no such tick, every tick has its label.
    """
    from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation

    scientific = LogFormatterSciNotation(minor_thresholds=(math.inf, math.inf))
    scientific.create_dummy_axis()

    def decades() -> float:
        low, high = sorted(axis.get_view_interval())
        return math.log10(high / low)

    def is_plain(value: float) -> bool:
        return 1e-3 <= value < 1e3

    def major(value: float, _: int | None) -> str:
        short = decades() <= SHORT and is_plain(value)
        return f"{value:g}" if short else str(scientific(value))

    def minor(value: float, _: int | None) -> str:
        digit = value / 10 ** math.floor(math.log10(value) + 1e-9)
        sparse = decades() > 0.3 and round(digit, 6) not in (2, 5)
        # powers of ten are wider
        room = decades() <= (SHORT if is_plain(value) else 1)
        return major(value, None) if room and not sparse else ""

    axis.set_major_formatter(FuncFormatter(major))
    axis.set_minor_formatter(FuncFormatter(minor))
