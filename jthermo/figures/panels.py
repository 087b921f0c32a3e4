"""Matplotlib panels and figures of results: curves, clocks, collapses, heatmaps. No JAX here.

A panel function draws into the Axes given as ``ax=``, or into a new figure, and returns the Axes.
`clocks` and `collapses` put several panels into one figure. Means have bands of one standard error,
and each value of a control has its own colour.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jthermo.errors import InputError, finite_number, one_of, sequence, whole_number
from jthermo.figures.colours import colours
from jthermo.figures.style import COLUMN, PAGE, STYLE, style
from jthermo.labels import log_ticks, plain, symbol, wrapped
from jthermo.results.tables import axes_of, require_dataset

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jthermo.collapse import CollapseFit, Exponent

    # One combination of the choices that the paper leaves open, its runs and their fit, as
    # jthermo.paper.claims.fit_choices returns them.
    Chosen = tuple[Mapping[str, Any], xr.Dataset, CollapseFit]

# The reference value c₀ of each control: at it the rescaled clock t·(c/c₀)^p equals t.
REFERENCE = {"learning_rate": 0.05, "batch_size": 1.0}
# Largest number of panels of a figure.
MOST_PANELS = 12
# Most dims of a NumPy array.
MOST_DIMS = 64


def curves(
    ds: xr.Dataset,
    variable: str,
    *,
    by: str = "learning_rate",
    power: float = 0,
    index: int | Sequence[int] | None = None,
    xscale: str = "log",
    ax: Axes | None = None,
) -> Axes:
    """Mean ± standard error over seeds for each value of a control, against t·(c/c₀)^power.

    Of an array, such as one value per layer, one element is drawn; without `index`, the median over
    all elements and seeds, with a band from the lower to the upper quartile.

    Args:
        ds: results in which only `by` and the seed vary.
        variable: the recorded variable.
        by: the control c, a coordinate of the runs.
        power: exponent of c in the clock.
        index: the element of an array, one whole number for each of its own dims.
        xscale: ``"log"``, which begins after step 0, or ``"linear"``.
        ax: axes to draw into; None makes a new figure, one column wide.

    Raises:
        InputError: `by` is not an axis of the results, or something else varies too; the variable
            is unknown or has no such element; or `power` is not a number.
    """
    _check(ds, variable, by)
    with style():
        ax = _draw(ax, ds, variable, by, power, index, xscale)
        ax.set_ylabel(_described(ds[variable], index))
        ax.legend()
    return ax


def _draw(
    ax: Axes | None,
    ds: xr.Dataset,
    variable: str,
    by: str,
    power: float,
    index: int | Sequence[int] | None = None,
    xscale: str = "log",
) -> Axes:
    """The curves, without a legend and a label of the vertical axis."""
    power = finite_number("power", power)
    one_of("xscale", xscale, ("log", "linear"))
    values = _element(ds[variable], index)
    ax = _axes(ax)
    settings = np.unique(ds[by].values)
    for value, colour in zip(settings, colours(len(settings)), strict=True):
        of = ds[by].values == value
        step, (middle, low, high) = _curve(
            ds.isel(run=of), values.isel(run=of), 1 if xscale == "log" else 0
        )
        clock = step * (value / REFERENCE.get(by, 1.0)) ** power
        ax.plot(clock, middle, color=colour, label=f"{symbol(by)} = {value:g}")
        ax.fill_between(clock, low, high, color=colour, alpha=0.25, linewidth=0)
    ax.set(xscale=xscale, xlabel=_clock_label(by, power))
    if xscale == "log":
        log_ticks(ax.xaxis)
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
    col: str | None = None,
    index: int | Sequence[int] | None = None,
    xscale: str = "log",
    ylabel: str = "",
) -> Figure:
    """A figure with one panel of :func:`curves` for each clock t·(c/c₀)^p.

    The curves coincide in the panel whose p is their scaling exponent.

    Args:
        ds: results in which only `by`, `col` and the seed vary.
        variable: the recorded variable.
        by: the control c, a coordinate of the runs.
        powers: p of each panel, side by side, or one below the other if there is `col`.
        col: an axis with one column of panels for each of its values.
        index: the element of an array, as for :func:`curves`.
        xscale: ``"log"`` or ``"linear"``.
        ylabel: label of the shared vertical axis; by default the variable's long name.

    Raises:
        InputError: as for :func:`curves`, or there would be more than 12 panels.
    """
    remedy = f"give from 1 to {MOST_PANELS} numbers"
    powers = sequence("powers", powers, MOST_PANELS, remedy)
    if not powers:
        raise InputError("powers", powers, remedy)
    parts = _facets(ds, col, MOST_PANELS // len(powers))
    for _, runs in parts:
        _check(runs, variable, by)
    with style():
        fig, axes = _grid(len(powers)) if col is None else _grid(len(parts), len(powers))
        panels = itertools.product(powers, parts)
        for ax, (power, (title, runs)) in zip(axes.flat, panels, strict=True):
            _draw(ax, runs, variable, by, power, index, xscale)
            if ax.get_subplotspec().is_first_row():
                ax.set_title(title)
        for ax in axes[:, 0]:
            ax.set_ylabel(ylabel or _described(ds[variable], index))
        axes[0, 0].legend()
    # the report reads from the label which variable the figure shows
    fig.set_label(variable)
    return fig


def _facets(ds: xr.Dataset, col: str | None, most: int) -> list[tuple[str, xr.Dataset]]:
    """A title and the runs of each column of panels."""
    if col is None:
        return [("", ds)]
    _require_axis(ds, "col", col)
    column = ds[col].values
    values = list(dict.fromkeys(column.tolist()))
    if len(values) > most:
        remedy = f"has {len(values)} values, for which a figure has no room; select at most {most}"
        raise InputError("col", col, remedy)
    name = symbol(col).rpartition(".")[2]
    return [(f"{name} = {plain(str(v))}", ds.isel(run=column == v)) for v in values]


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
        fig, ((*axes,),) = _grid(len(chosen), share=share)
        for ax, (choice, runs, fit) in zip(axes, chosen, strict=True):
            ((control, exponent),) = fit.exponents.items()
            # without an identified exponent the curves are drawn against t
            known = np.isfinite(exponent.value)
            _draw(ax, runs, fit.curves.value, control, exponent.value if known else 0.0)
            name = ", ".join(f"{k.rpartition('.')[2]} {v}" for k, v in choice.items())
            numbers = f"{_interval(exponent)}\nmisfit {100 * fit.misfit:.1f} %"
            ax.set_title(
                f"{name}\n{numbers if known else 'no exponent identified'}".lstrip(), fontsize=7
            )
        axes[0].set_ylabel(ylabel or _described(runs[fit.curves.value], None))
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
            colours, and cells without an exponent are grey.
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
            text = _interval(exponent).replace(" [", "\n[") if known else "not\nidentifiable"
            # white text on the dark cells, far from the target
            dark = known and abs(exponent.value - target) > 0.65
            # so that two negative limits fit into a cell
            size = 6 if max(map(len, text.split("\n"))) < 14 else 5.4
            middle: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size}
            ax.text(column + 0.5, row + 0.5, text, color="white" if dark else "black", **middle)
        shades = plt.get_cmap("PuOr").with_extremes(bad="0.8")
        ax.pcolormesh(
            value, cmap=shades, vmin=target - 1, vmax=target + 1, edgecolor="white", zorder=0
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
    step, (mean, _, high) = _curve(runs, runs[variable], 1)
    return step, mean, high - mean


def _curve(
    runs: xr.Dataset, values: xr.DataArray, first: int
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The steps from `first` on with a finite run, and the middle of the values with its band.

    It is the mean ± standard error of one number per record, and the median and the quartiles of
    several.
    """
    # where a run has not come as far as others, its step is -1
    step = runs.step.values.max(axis=0)
    finite = runs.finite.values
    there = finite.reshape(finite.shape + (1,) * (values.ndim - 2))
    value = np.where(there, values.values, np.nan)
    keep = (step >= first) & np.isfinite(value).any(axis=(0, *range(2, value.ndim)))
    value = value[:, keep]
    if value.ndim > 2:
        pooled = np.moveaxis(value, 1, 0).reshape(value.shape[1], -1)
        low, middle, high = np.nanquantile(pooled, (0.25, 0.5, 0.75), axis=1)
        return step[keep], (middle, low, high)
    count = np.isfinite(value).sum(axis=0)
    spread = np.nanstd(value, axis=0) * np.sqrt(count / np.maximum(count - 1, 1))
    mean, error = np.nanmean(value, axis=0), spread / np.sqrt(count)
    return step[keep], (mean, mean - error, mean + error)


def _element(array: xr.DataArray, index: int | Sequence[int] | None) -> xr.DataArray:
    """One element of an array, or all of them."""
    own = [str(d) for d in array.dims if d not in ("run", "record")]
    array = array.transpose("run", "record", *own)
    if index is None:
        return array
    given = _numbers(index)
    if len(given) != len(own):
        remedy = f"give one number for each of {', '.join(own)}" if own else "omit it"
        raise InputError("index", index, f"{array.name} has {len(own)} dims of its own; {remedy}")
    places = {
        d: whole_number("index", i, 0, array.sizes[d] - 1) for d, i in zip(own, given, strict=True)
    }
    return array.isel(places)


def _numbers(index: int | Sequence[int]) -> tuple[Any, ...]:
    if not isinstance(index, Sequence):
        return (index,)
    return sequence("index", index, MOST_DIMS, "give one number for each dim")


def _described(array: xr.DataArray, index: int | Sequence[int] | None) -> str:
    """The label of the vertical axis: the variable's long name, and what is drawn of an array."""
    name = wrapped(array.attrs.get("long_name", array.name))
    own = [str(d) for d in array.dims if d not in ("run", "record")]
    if not own:
        return name
    if index is None:
        return f"{name}\nquartiles over each {', '.join(own)}"
    places = zip(own, _numbers(index), strict=True)
    return f"{name}\n{', '.join(f'{d} {i}' for d, i in places)}"


def _axes(ax: Axes | None) -> Axes:
    """The given axes, or those of a new figure, one column wide."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    with style():
        return plt.subplots()[1]


def _grid(number: int, rows: int = 1, share: bool = True) -> tuple[Figure, np.ndarray]:
    """A new figure of panels, `number` side by side, at most one page wide."""
    import matplotlib.pyplot as plt

    width = max(COLUMN, min(PAGE, PAGE * number / 3))
    size = (width, 2.2 * rows)
    return plt.subplots(rows, number, figsize=size, sharey=share, squeeze=False)


def _interval(exponent: Exponent) -> str:
    """An exponent with its interval, with minus signs rather than hyphens."""
    numbers = f"{exponent.value:.2f} [{exponent.low:.2f}, {exponent.high:.2f}]"
    return numbers.replace("-", "−")


def _clock_label(by: str, power: float) -> str:
    if power == 0:
        return "t"
    name, reference = symbol(by), REFERENCE.get(by, 1.0)
    ratio = name if reference == 1 else f"({name}/{reference:g})"
    if power == -1:
        return f"t/{ratio}"
    return f"t {ratio}" + ("" if power == 1 else f"$^{{{power:.3g}}}$")


def _require_axis(ds: xr.Dataset, field: str, name: str) -> None:
    """Raise an InputError for the argument `field` unless it names a swept axis."""
    axes = axes_of(ds)
    if not isinstance(name, str) or name not in axes:
        raise InputError(field, name, f"is not a swept axis; choose one of {', '.join(axes)}")


def _check(ds: xr.Dataset, variable: str, by: str) -> None:
    """Raise an InputError unless `variable` is one curve for each value of the numbers `by`."""
    require_dataset(ds)
    _require_axis(ds, "by", by)
    if ds[by].dtype.kind not in "iuf":
        raise InputError("by", by, "takes no numbers; choose an axis of numbers")
    if not isinstance(variable, str) or variable not in ds.data_vars:
        names = ", ".join(map(str, ds.data_vars))
        raise InputError("variable", variable, f"is not in the results, which hold {names}")
    for name, coordinate in ds.coords.items():
        if (
            coordinate.dims == ("run",)
            and name not in (by, "seed")
            and len(np.unique(coordinate.values)) > 1
        ):
            values = np.unique(coordinate.values).tolist()
            one = f"ds.isel(run=ds[{name!r}].values == {values[0]!r})"
            raise InputError(
                str(name),
                values,
                f"select one value, with --where {name}={values[0]} ({one}), or draw a column for "
                f"each, with --col {name} (col={name!r} of clocks)",
            )
