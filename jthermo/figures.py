"""Figures from results. No JAX here.

A panel is a function that takes ``ax=`` and returns the Axes, its own where none are given; a whole figure (`clocks`,
`collapses`) is made of them. Means have standard-error bands, and a control has one colour per value.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jthermo.errors import InputError
from jthermo.files import write_whole, writing

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jthermo.claims import Chosen
    from jthermo.collapse import CollapseFit

COLUMN, PAGE = 3.4, 7.0  # widths in inches, of one column and of two
# Okabe & Ito (2008) without yellow; in this order the first ones are the farthest apart
CATEGORIES = ("#0072B2", "#D55E00", "#56B4E9", "#E69F00", "#CC79A7", "#009E73")
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
    "pdf.fonttype": 42,  # letters stay letters
    "svg.hashsalt": "jthermo",  # one figure, one file
}
SYMBOL = {"learning_rate": "η", "batch_size": "B", "data.redraw": "p"}
REFERENCE = {"learning_rate": 0.05, "batch_size": 1.0}  # the paper's clocks agree with t at these values
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


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


def curves(
    ds: xr.Dataset, variable: str, *, by: str = "learning_rate", power: float = 0, ax: Axes | None = None
) -> Axes:
    """Mean ± standard error over the seeds for each value of a control, against t·(c/c₀)^power on a log axis.

    Args:
        ds: results in which only `by` and the seed vary.
        variable: what to draw.
        by: the control c, a coordinate of the runs.
        power: of the clock.
        ax: where to draw; a column-wide figure of its own where it is None.
    """
    _refuse_mixed(ds, by)
    ax = _axes(ax)
    values = np.unique(ds[by].values)
    for value, colour in zip(values, colours(len(values)), strict=True):
        runs = ds.isel(run=ds[by].values == value)
        step, mean, error = mean_curve(runs, variable)
        clock = step * (value / REFERENCE.get(by, 1.0)) ** power
        band(clock, mean, error, ax=ax, color=colour, label=f"{SYMBOL.get(by, by)} = {value:g}")
    ax.set(xscale="log", xlabel=_clock_label(by, power))
    return ax


def band(x: np.ndarray, mean: np.ndarray, error: np.ndarray, *, ax: Axes | None = None, **line: Any) -> Axes:
    """A line with a band of ± `error` in its colour.

    Args:
        x: abscissae.
        mean: ordinates.
        error: half the height of the band.
        ax: where to draw; a figure of its own where it is None.
        **line: of the line: ``color``, ``label`` …
    """
    ax = _axes(ax)
    (drawn,) = ax.plot(x, mean, **line)
    ax.fill_between(x, mean - error, mean + error, color=drawn.get_color(), alpha=0.25, linewidth=0)
    return ax


def theory(x: Any, y: Any, *, ax: Axes | None = None, label: str = "theory", **line: Any) -> Axes:
    """A prediction over the data: dashed and black.

    Args:
        x: abscissae.
        y: what the theory says there.
        ax: where the data are; a figure of its own where it is None.
        label: for the legend.
        **line: other than dashed, black and 0.9 pt wide.
    """
    ax = _axes(ax)
    ax.plot(x, y, label=label, **{"color": "black", "ls": "--", "lw": 0.9, "zorder": 3, **line})
    return ax


def collapse(fit: CollapseFit, *, ax: Axes | None = None) -> Axes:
    """The means on the fitted clock τ, over the common curve with its band, as :meth:`fit.plot` draws them."""
    with style():
        return fit.plot(_axes(ax))


def residuals(fit: CollapseFit, *, ax: Axes | None = None) -> Axes:
    """The means minus the common curve against τ, with the curve's band at 0, as :meth:`fit.plot_residuals` draws them."""
    with style():
        return fit.plot_residuals(_axes(ax))


def clocks(
    ds: xr.Dataset,
    variable: str,
    *,
    by: str = "learning_rate",
    powers: Sequence[float] = (0, 1, 2),
    ylabel: str = "",
) -> Figure:
    """A figure of :func:`curves`, a panel for each clock t·(c/c₀)^p: if the claim holds, the curves meet on its clock.

    Args:
        ds: results in which only `by` and the seed vary.
        variable: what to draw.
        by: the control c, a coordinate of the runs.
        powers: p of each panel.
        ylabel: label of the shared vertical axis; the variable's long name where empty.
    """
    with style():
        fig, axes = _row(len(powers))
        for ax, power in zip(axes, powers, strict=True):
            curves(ds, variable, by=by, power=power, ax=ax)
        axes[0].set_ylabel(ylabel or ds[variable].attrs.get("long_name", variable))
        axes[0].legend()
    return fig


def collapses(chosen: Sequence[Chosen], *, ylabel: str = "", share: bool = True) -> Figure:
    """A figure of :func:`curves`, a panel for each choice, on the clock that fits best, its exponent and interval above.

    Args:
        chosen: fits of one variable on one control, as :func:`jthermo.claims.fit_choices` makes them.
        ylabel: label of the vertical axis; the variable's long name where empty.
        share: one vertical axis for all panels.
    """
    with style():
        fig, axes = _row(len(chosen), share=share)
        for ax, (choice, runs, fit) in zip(axes, chosen, strict=True):
            ((control, exponent),) = fit.exponents.items()
            known = np.isfinite(exponent.value)  # the curves as they are where no exponent is known
            curves(runs, fit.curves.value, by=control, power=exponent.value if known else 0.0, ax=ax)
            name = ", ".join(f"{k.rpartition('.')[2]} {v}" for k, v in choice.items())
            found = f"{exponent.value:.2f} [{exponent.low:.2f}, {exponent.high:.2f}]\nmisfit {100 * fit.misfit:.1f} %"
            ax.set_title(f"{name}\n{found if known else 'no exponent identified'}".lstrip(), fontsize=7)
        axes[0].set_ylabel(ylabel or runs[fit.curves.value].attrs.get("long_name", fit.curves.value))
        axes[0].legend()
    return fig


def mean_curve(runs: xr.Dataset, variable: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps t > 0 with the mean over finite runs and its standard error; the runs share their recorded steps."""
    step = runs.step.values[0]
    value = np.where(runs.finite.values, runs[variable].values, np.nan)[:, step > 0]
    count = np.isfinite(value).sum(0)
    keep = count > 0
    value, count = value[:, keep], count[keep]
    spread = np.nanstd(value, axis=0) * np.sqrt(count / np.maximum(count - 1, 1))
    return step[step > 0][keep], np.nanmean(value, axis=0), spread / np.sqrt(count)


def save(made: Mapping[str, Figure], folder: str | Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write figures, whole or not at all, and close them.

    Args:
        made: figures by name.
        folder: where to.
        formats: ``"png"``, ``"pdf"`` and ``"svg"``.
    """
    import matplotlib.pyplot as plt

    if unknown := set(formats) - set(METADATA):
        raise InputError("formats", unknown, f"use {', '.join(METADATA)}")
    paths = []
    for name, fig in made.items():
        for kind in formats:
            body = io.BytesIO()
            with style():
                fig.savefig(body, format=kind, metadata=METADATA[kind])
            paths.append(Path(folder) / f"{name}.{kind}")
            with writing(folder):
                Path(folder).mkdir(parents=True, exist_ok=True)
                write_whole(paths[-1], body.getvalue())
        plt.close(fig)
    return paths


def colours(number: int) -> list[Any]:
    """A dark-to-light sequence that colour-blind readers can order."""
    from matplotlib import colormaps

    return [colormaps["viridis"](x) for x in np.linspace(0.0, 0.82, max(number, 2))][:number]


def _axes(ax: Axes | None) -> Axes:
    """The given axes, or those of a new column-wide figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    with style():
        return plt.subplots()[1]


def _row(number: int, share: bool = True) -> tuple[Figure, Sequence[Axes]]:
    """A figure of `number` panels side by side, no wider than a page."""
    import matplotlib.pyplot as plt

    width = max(COLUMN, min(PAGE, PAGE * number / 3))
    fig, axes = plt.subplots(1, number, figsize=(width, 2.2), sharey=share, squeeze=False)
    return fig, axes[0]


def _clock_label(by: str, power: float) -> str:
    if power == 0:
        return "t"
    symbol, reference = SYMBOL.get(by, by), REFERENCE.get(by, 1.0)
    ratio = symbol if reference == 1 else f"({symbol}/{reference:g})"
    if power == -1:
        return f"t/{ratio}"
    return f"t {ratio}" + ("" if power == 1 else f"$^{{{power:.3g}}}$")


def _refuse_mixed(ds: xr.Dataset, by: str) -> None:
    if by not in ds.coords:
        raise InputError(
            "by", by, f"is no swept axis; the results have {', '.join(str(c) for c in ds.coords)}"
        )
    for name, coordinate in ds.coords.items():
        if coordinate.dims == ("run",) and name not in (by, "seed") and len(np.unique(coordinate.values)) > 1:
            raise InputError(
                "ds",
                f"{name} with several values",
                f"pick one first: ds.isel(run=ds[{name!r}].values == ...)",
            )
