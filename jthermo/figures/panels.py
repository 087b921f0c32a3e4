"""Figures from results. No JAX here.

A panel is a function that takes ``ax=`` and returns the Axes, its own where none are given; a whole figure (`clocks`,
`collapses`) is made of them. Means have standard-error bands, and a control has one colour per value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jthermo.errors import InputError
from jthermo.figures.colours import colours
from jthermo.figures.style import COLUMN, PAGE, STYLE, SYMBOL, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jthermo.collapse import CollapseFit

    # One combination of the open choices, its runs and their fit: what jthermo.paper.claims.fit_choices gives.
    Chosen = tuple[Mapping[str, Any], xr.Dataset, CollapseFit]

# The values at which the paper's rescaled clocks agree with t.
REFERENCE = {"learning_rate": 0.05, "batch_size": 1.0}


def curves(
    ds: xr.Dataset,
    variable: str,
    *,
    by: str = "learning_rate",
    power: float = 0,
    ax: Axes | None = None,
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


def band(
    x: np.ndarray, mean: np.ndarray, error: np.ndarray, *, ax: Axes | None = None, **line: Any
) -> Axes:
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
    """The means on the fitted clock τ, over the common curve with its band: :meth:`jthermo.collapse.CollapseFit.plot`."""
    with style():
        return fit.plot(_axes(ax))


def residuals(fit: CollapseFit, *, ax: Axes | None = None) -> Axes:
    """The means minus the common curve against τ: :meth:`jthermo.collapse.CollapseFit.plot_residuals`."""
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
    # what it shows
    fig.set_label(variable)
    return fig


def collapses(chosen: Sequence[Chosen], *, ylabel: str = "", share: bool = True) -> Figure:
    """A figure of :func:`curves`, a panel for each choice, on the clock that fits best, its exponent and interval above.

    Args:
        chosen: fits of one variable on one control, as :func:`jthermo.paper.claims.fit_choices` makes them.
        ylabel: label of the vertical axis; the variable's long name where empty.
        share: one vertical axis for all panels.
    """
    with style():
        fig, axes = _row(len(chosen), share=share)
        for ax, (choice, runs, fit) in zip(axes, chosen, strict=True):
            ((control, exponent),) = fit.exponents.items()
            # the curves as they are where no exponent is known
            known = np.isfinite(exponent.value)
            curves(
                runs, fit.curves.value, by=control, power=exponent.value if known else 0.0, ax=ax
            )
            name = ", ".join(f"{k.rpartition('.')[2]} {v}" for k, v in choice.items())
            found = f"{exponent.value:.2f} [{exponent.low:.2f}, {exponent.high:.2f}]\nmisfit {100 * fit.misfit:.1f} %"
            ax.set_title(
                f"{name}\n{found if known else 'no exponent identified'}".lstrip(), fontsize=7
            )
        axes[0].set_ylabel(
            ylabel or runs[fit.curves.value].attrs.get("long_name", fit.curves.value)
        )
        axes[0].legend()
    fig.set_label(fit.curves.value)
    return fig


def heatmap(
    ax: Axes,
    chosen: Sequence[Chosen],
    *,
    x: str,
    y: str,
    target: float,
    names: Mapping[str, str] | None = None,
) -> Axes:
    """The exponent of every fit over two choices: a cell for each pair, its colour the distance from a claimed exponent.

    Args:
        ax: where to draw.
        chosen: fits of one variable on one control, one for each pair, as :func:`jthermo.paper.claims.fit_choices` makes them.
        x: the choice along the horizontal axis.
        y: the choice along the vertical axis.
        target: the claimed exponent; it is white, one more or less is the darkest.
        names: values of the choices in other words.
    """
    import matplotlib.pyplot as plt

    columns, rows = (
        list(dict.fromkeys(str(choice[axis]) for choice, _, _ in chosen)) for axis in (x, y)
    )
    value = np.full((len(rows), len(columns)), np.nan)
    with plt.rc_context(STYLE):
        for choice, _, fit in chosen:
            ((found),) = fit.exponents.values()
            row, column = rows.index(str(choice[y])), columns.index(str(choice[x]))
            value[row, column] = found.value
            known = np.isfinite(found.value)
            text = (
                f"{found.value:.2f}\n[{found.low:.2f}, {found.high:.2f}]"
                if known
                else "not\nidentifiable"
            )
            dark = known and abs(found.value - target) > 0.65
            middle: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6}
            ax.text(column + 0.5, row + 0.5, text, color="white" if dark else "black", **middle)
        ax.pcolormesh(
            value, cmap="PuOr", vmin=target - 1, vmax=target + 1, edgecolor="white", zorder=0
        )
        words = names or {}
        ax.set_xticks(np.arange(len(columns)) + 0.5, [words.get(c, c) for c in columns])
        ax.set_yticks(np.arange(len(rows)) + 0.5, [words.get(r, r) for r in rows])
        ax.set_ylim(len(rows), 0)
        ax.tick_params(which="both", length=0)
        ax.spines[:].set_visible(False)
    return ax


def mean_curve(runs: xr.Dataset, variable: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps t > 0 with the mean over finite runs and its standard error; the runs share their recorded steps."""
    step = runs.step.values[0]
    value = np.where(runs.finite.values, runs[variable].values, np.nan)[:, step > 0]
    count = np.isfinite(value).sum(0)
    keep = count > 0
    value, count = value[:, keep], count[keep]
    spread = np.nanstd(value, axis=0) * np.sqrt(count / np.maximum(count - 1, 1))
    return step[step > 0][keep], np.nanmean(value, axis=0), spread / np.sqrt(count)


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
        if (
            coordinate.dims == ("run",)
            and name not in (by, "seed")
            and len(np.unique(coordinate.values)) > 1
        ):
            raise InputError(
                "ds",
                f"{name} with several values",
                f"pick one first: ds.isel(run=ds[{name!r}].values == ...)",
            )
