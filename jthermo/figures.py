"""Figures from results: Axes in, Axes out. Means with standard-error bands, one colour per control value. No JAX here."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
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

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "figure.dpi": 200,
    "savefig.bbox": "tight",
}
SYMBOL = {"learning_rate": "η", "batch_size": "B", "data.redraw": "p"}
REFERENCE = {"learning_rate": 0.05, "batch_size": 1.0}  # the paper's clocks agree with t at these values


def clocks(
    ds: xr.Dataset,
    variable: str,
    *,
    by: str = "learning_rate",
    powers: Sequence[float] = (0, 1, 2),
    ylabel: str = "",
) -> Figure:
    """One panel per clock t·(c/c₀)^p, like the paper's figures: if the claim holds, the curves meet on its clock.

    Args:
        ds: results in which only `by` and the seed vary.
        variable: what to draw.
        by: the control c, a coordinate of the runs.
        powers: p of each panel.
        ylabel: label of the shared vertical axis; the variable's long name where empty.
    """
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            1, len(powers), figsize=(2.3 * len(powers), 2.1), sharey=True, squeeze=False, layout="constrained"
        )
        for ax, power in zip(axes[0], powers, strict=True):
            curves(ax, ds, variable, by=by, power=power)
        axes[0, 0].set_ylabel(ylabel or ds[variable].attrs.get("long_name", variable))
        axes[0, 0].legend(handlelength=1.2, loc="best")
    return fig


def curves(ax: Axes, ds: xr.Dataset, variable: str, *, by: str = "learning_rate", power: float = 0) -> Axes:
    """Mean ± standard error over the seeds for each value of a control, against t·(c/c₀)^power on a log axis."""
    _refuse_mixed(ds, by)
    values = np.unique(ds[by].values)
    for value, colour in zip(values, colours(len(values)), strict=True):
        runs = ds.isel(run=ds[by].values == value)
        step, mean, error = mean_curve(runs, variable)
        clock = step * (value / REFERENCE.get(by, 1.0)) ** power
        ax.fill_between(clock, mean - error, mean + error, color=colour, alpha=0.25, linewidth=0)
        ax.plot(clock, mean, color=colour, label=f"{SYMBOL.get(by, by)} = {value:g}")
    ax.set_xscale("log")
    ax.set_xlabel(_clock_label(by, power))
    return ax


def collapses(chosen: Sequence[Chosen], *, ylabel: str = "", share: bool = True) -> Figure:
    """One panel per choice: the curves on the clock that fits them best, with the exponent and its interval in the title.

    Args:
        chosen: fits of one variable on one control, as :func:`jthermo.claims.fit_choices` makes them.
        ylabel: label of the vertical axis; the variable's long name where empty.
        share: one vertical axis for all panels.
    """
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            1,
            len(chosen),
            figsize=(2.3 * len(chosen), 2.2),
            sharey=share,
            squeeze=False,
            layout="constrained",
        )
        for ax, (choice, runs, fit) in zip(axes[0], chosen, strict=True):
            ((control, exponent),) = fit.exponents.items()
            known = np.isfinite(exponent.value)  # the curves as they are where no exponent is known
            curves(ax, runs, fit.curves.value, by=control, power=exponent.value if known else 0.0)
            name = ", ".join(f"{k.rpartition('.')[2]} {v}" for k, v in choice.items())
            found = f"{exponent.value:.2f} [{exponent.low:.2f}, {exponent.high:.2f}], misfit {100 * fit.misfit:.1f} %"
            ax.set_title(f"{name}\n{found if known else 'no exponent identified'}".lstrip())
        axes[0, 0].set_ylabel(ylabel or runs[fit.curves.value].attrs.get("long_name", fit.curves.value))
        axes[0, 0].legend(handlelength=1.2, loc="best")
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


def save(made: Mapping[str, Figure], folder: str | Path) -> list[Path]:
    """Write figures as PNG, whole or not at all, and close them."""
    import matplotlib.pyplot as plt

    paths = []
    for name, fig in made.items():
        body = io.BytesIO()
        with plt.rc_context(STYLE):
            fig.savefig(body, format="png", metadata={"Software": None})
        plt.close(fig)
        paths.append(Path(folder) / f"{name}.png")
        with writing(folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
            write_whole(paths[-1], body.getvalue())
    return paths


def colours(number: int) -> list[Any]:
    """A dark-to-light sequence that colour-blind readers can order."""
    from matplotlib import colormaps

    return [colormaps["viridis"](x) for x in np.linspace(0.0, 0.82, max(number, 2))][:number]


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
