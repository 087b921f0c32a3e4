"""Matplotlib panels and figures of results: curves, clocks, collapses, heatmaps. No JAX here.

A panel function draws into the Axes given as ``ax=``, or into a new figure, and returns the Axes.
`clocks` and `collapses` put several panels into one figure. Means have bands of one standard error,
and each value of a control has its own colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jthermo.errors import InputError, finite_number, sequence
from jthermo.figures.colours import colours
from jthermo.figures.style import COLUMN, PAGE, STYLE, SYMBOL, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jthermo.collapse import CollapseFit

    # One combination of the choices that the paper leaves open, its runs and their fit, as
    # jthermo.paper.claims.fit_choices returns them.
    Chosen = tuple[Mapping[str, Any], xr.Dataset, CollapseFit]

# The reference value c₀ of each control: at it the rescaled clock t·(c/c₀)^p equals t.
REFERENCE = {"learning_rate": 0.05, "batch_size": 1.0}
# Largest number of panels of a figure.
MOST_PANELS = 12


def curves(
    ds: xr.Dataset,
    variable: str,
    *,
    by: str = "learning_rate",
    power: float = 0,
    ax: Axes | None = None,
) -> Axes:
    """Mean ± standard error over seeds for each value of a control, against t·(c/c₀)^power.

    Args:
        ds: results in which only `by` and the seed vary.
        variable: the recorded variable.
        by: the control c, a coordinate of the runs.
        power: exponent of c in the clock; the clock has a logarithmic axis.
        ax: axes to draw into; None makes a new figure, one column wide.

    Raises:
        InputError: `by` is not an axis of the results, or something else varies too; the variable
            is unknown or has further dims; or `power` is not a number.
    """
    _check(ds, variable, by)
    power = finite_number("power", power)
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
        x: abscissae, (K,).
        mean: ordinates, (K,).
        error: half the height of the band, (K,).
        ax: axes to draw into; None makes a new figure.
        **line: properties of the line, such as ``color`` and ``label``.
    """
    ax = _axes(ax)
    (drawn,) = ax.plot(x, mean, **line)
    ax.fill_between(x, mean - error, mean + error, color=drawn.get_color(), alpha=0.25, linewidth=0)
    return ax


def theory(x: Any, y: Any, *, ax: Axes | None = None, label: str = "theory", **line: Any) -> Axes:
    """A predicted curve as a dashed black line, drawn over the data.

    Args:
        x: abscissae, (K,).
        y: the prediction at `x`, (K,).
        ax: axes of the data; None makes a new figure.
        label: text in the legend.
        **line: properties of the line that replace dashed, black and 0.9 pt.
    """
    ax = _axes(ax)
    ax.plot(x, y, label=label, **{"color": "black", "ls": "--", "lw": 0.9, "zorder": 3, **line})
    return ax


def collapse(fit: CollapseFit, *, ax: Axes | None = None) -> Axes:
    """The means and their common curve against τ, in jthermo's style.

    Args:
        fit: the fit; see :meth:`jthermo.collapse.CollapseFit.plot`.
        ax: axes to draw into; None makes a new figure.
    """
    with style():
        return fit.plot(_axes(ax))


def residuals(fit: CollapseFit, *, ax: Axes | None = None) -> Axes:
    """The means minus their common curve against τ, in jthermo's style.

    Args:
        fit: the fit; see :meth:`jthermo.collapse.CollapseFit.plot_residuals`.
        ax: axes to draw into; None makes a new figure.
    """
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
    """A figure with one panel of :func:`curves` for each clock t·(c/c₀)^p.

    The curves coincide in the panel whose p is their scaling exponent.

    Args:
        ds: results in which only `by` and the seed vary.
        variable: the recorded variable.
        by: the control c, a coordinate of the runs.
        powers: p of each panel.
        ylabel: label of the shared vertical axis; by default the variable's long name.

    Raises:
        InputError: as for :func:`curves`.
    """
    remedy = f"give from 1 to {MOST_PANELS} numbers"
    powers = sequence("powers", powers, MOST_PANELS, remedy)
    if not powers:
        raise InputError("powers", powers, remedy)
    _check(ds, variable, by)
    with style():
        fig, axes = _row(len(powers))
        for ax, power in zip(axes, powers, strict=True):
            curves(ds, variable, by=by, power=power, ax=ax)
        axes[0].set_ylabel(ylabel or ds[variable].attrs.get("long_name", variable))
        axes[0].legend()
    # the report reads from the label which variable the figure shows
    fig.set_label(variable)
    return fig


def collapses(chosen: Sequence[Chosen], *, ylabel: str = "", share: bool = True) -> Figure:
    """A figure with one panel of :func:`curves` per fit, each on its best-fitting clock.

    The title of a panel gives the exponent, its interval and the misfit.

    Args:
        chosen: fits of one variable on one control, as returned by
            :func:`jthermo.paper.claims.fit_choices`.
        ylabel: label of the vertical axis; by default the variable's long name.
        share: whether all panels share one vertical axis.
    """
    with style():
        fig, axes = _row(len(chosen), share=share)
        for ax, (choice, runs, fit) in zip(axes, chosen, strict=True):
            ((control, exponent),) = fit.exponents.items()
            # without an identified exponent the curves are drawn against t
            known = np.isfinite(exponent.value)
            curves(
                runs, fit.curves.value, by=control, power=exponent.value if known else 0.0, ax=ax
            )
            name = ", ".join(f"{k.rpartition('.')[2]} {v}" for k, v in choice.items())
            interval = f"{exponent.value:.2f} [{exponent.low:.2f}, {exponent.high:.2f}]"
            numbers = f"{interval}\nmisfit {100 * fit.misfit:.1f} %"
            ax.set_title(
                f"{name}\n{numbers if known else 'no exponent identified'}".lstrip(), fontsize=7
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
    """A table of fitted exponents over two choices, coloured by their distance from a claimed one.

    Args:
        ax: axes to draw into.
        chosen: fits of one variable on one control, one for each pair of choices, as returned by
            :func:`jthermo.paper.claims.fit_choices`.
        x: the choice along the horizontal axis.
        y: the choice along the vertical axis.
        target: the claimed exponent. It is white; exponents 1 above or below have the darkest
            colours.
        names: labels for values of the choices; a value without one labels itself.
    """
    import matplotlib.pyplot as plt

    columns, rows = (
        list(dict.fromkeys(str(choice[axis]) for choice, _, _ in chosen)) for axis in (x, y)
    )
    value = np.full((len(rows), len(columns)), np.nan)
    with plt.rc_context(STYLE):
        for choice, _, fit in chosen:
            (exponent,) = fit.exponents.values()
            row, column = rows.index(str(choice[y])), columns.index(str(choice[x]))
            value[row, column] = exponent.value
            known = np.isfinite(exponent.value)
            text = (
                f"{exponent.value:.2f}\n[{exponent.low:.2f}, {exponent.high:.2f}]"
                if known
                else "not\nidentifiable"
            )
            # white text on the dark cells, far from the target
            dark = known and abs(exponent.value - target) > 0.65
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
    """The mean of a variable over the finite runs, and its standard error, at each step t > 0.

    Args:
        runs: results whose runs share their recorded steps.
        variable: the recorded variable.

    Returns:
        Steps, means and standard errors, each (K,); records without a finite run are left out.
    """
    step = runs.step.values[0]
    value = np.where(runs.finite.values, runs[variable].values, np.nan)[:, step > 0]
    count = np.isfinite(value).sum(0)
    keep = count > 0
    value, count = value[:, keep], count[keep]
    spread = np.nanstd(value, axis=0) * np.sqrt(count / np.maximum(count - 1, 1))
    return step[step > 0][keep], np.nanmean(value, axis=0), spread / np.sqrt(count)


def _axes(ax: Axes | None) -> Axes:
    """The given axes, or those of a new figure, one column wide."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    with style():
        return plt.subplots()[1]


def _row(number: int, share: bool = True) -> tuple[Figure, Sequence[Axes]]:
    """A new figure of `number` panels side by side, at most one page wide."""
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


def _check(ds: xr.Dataset, variable: str, by: str) -> None:
    """Raise an InputError unless `variable` is one curve for each value of the numbers `by`."""
    axes = [str(name) for name, c in ds.coords.items() if c.dims == ("run",)]
    if not isinstance(by, str) or by not in axes:
        raise InputError("by", by, f"is not a swept axis; choose one of {', '.join(axes)}")
    if ds[by].dtype.kind not in "iuf":
        raise InputError("by", by, "takes no numbers; choose an axis of numbers")
    if not isinstance(variable, str) or variable not in ds.data_vars:
        names = ", ".join(map(str, ds.data_vars))
        raise InputError("variable", variable, f"is not in the results, which hold {names}")
    if own := [str(d) for d in ds[variable].dims if d not in ("run", "record")]:
        select = ", ".join(f"{name}=0" for name in own)
        raise InputError(
            "variable",
            variable,
            f"is an array over {', '.join(own)}; select one element, as in ds.isel({select})",
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
                f"select one value first: ds.isel(run=ds[{name!r}].values == ...)",
            )
