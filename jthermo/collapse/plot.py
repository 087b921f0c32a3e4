"""The pictures of a fit. Matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .result import CollapseFit


def axes(ax: Axes | None) -> Axes:
    """The given axes, or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def title(fit: CollapseFit) -> str:
    """τ = t·η^1.98·… and the verdict, for a panel's title."""
    verdict = {True: "", False: "  (does not collapse)", None: "  (undecided)"}[fit.collapsed]
    known = {name: fit.exponents[name].value for name in fit.curves.controls}
    powers = [f"{name}^{power:.3g}" for name, power in known.items() if np.isfinite(power)]
    return "τ = " + "·".join([fit.curves.time, *powers]) + verdict


def plot_collapse(fit: CollapseFit, ax: Axes | None = None) -> Axes:
    """Each condition's mean ± standard error against τ, over the fitted curve with its pointwise band."""
    ax = axes(ax)
    tau = np.exp(fit.log_tau)
    ax.fill_between(tau, fit.curve - 2 * fit.curve_error, fit.curve + 2 * fit.curve_error, color="0.85", lw=0)
    ax.plot(tau, fit.curve, color="0.4", lw=1)
    _draw(fit, ax, lambda _, mean: mean)
    heights = {name: fit.exponents.get(f"value_{name}") for name in fit.curves.controls}
    scale = "·".join(f"{name}^{e.value:.3g}" for name, e in heights.items() if e is not None)
    ax.set(ylabel=f"{fit.curves.value} / {scale}" if scale else fit.curves.value, title=title(fit))
    ax.legend(fontsize="x-small", frameon=False)
    return ax


def plot_residuals(fit: CollapseFit, ax: Axes | None = None) -> Axes:
    """Each condition's mean minus the curve ± standard error against τ, with the curve's band at 0."""
    ax = axes(ax)
    ax.fill_between(np.exp(fit.log_tau), -2 * fit.curve_error, 2 * fit.curve_error, color="0.85", lw=0)
    ax.axhline(0.0, color="0.4", lw=1)
    _draw(fit, ax, lambda tau, mean: mean - np.interp(np.log(tau), fit.log_tau, fit.curve))
    ax.set(
        ylabel=f"{fit.curves.value} − curve", title=f"p = {fit.p_value:.2g}, misfit {100 * fit.misfit:.2g} %"
    )
    return ax


def _draw(fit: CollapseFit, ax: Axes, shown: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Means with error bars, one colour a condition in the order of the controls."""
    from matplotlib import colormaps
    from matplotlib.ticker import NullFormatter

    conditions = fit.curves.conditions
    for number, condition in enumerate(conditions):
        setting = dict(zip(fit.curves.controls, np.exp(condition.log_controls), strict=True))
        values = fit.rescaled(condition.values, **setting)
        count = np.maximum(np.isfinite(values).sum(axis=0), 1)
        error = np.nanstd(values, axis=0) / np.sqrt(np.maximum(count - 1, 1))
        tau = fit.tau(np.exp(condition.log_time), **setting)
        label = ", ".join(f"{name} {value:g}" for name, value in setting.items())
        colour = colormaps["viridis"](0.82 * number / max(len(conditions) - 1, 1))
        height = shown(tau, np.nanmean(values, axis=0))
        ax.errorbar(tau, height, error, fmt=".", ms=3, lw=0.6, color=colour, label=label)
    ax.set(xscale="log", xlabel="τ")
    ax.xaxis.set_minor_formatter(NullFormatter())  # over less than two decades they would overlap


def plot_profile(fit: CollapseFit, name: str, ax: Axes | None = None) -> Axes:
    """Log likelihood lost when one exponent is held and all else fitted again, over three intervals' width."""
    ax = axes(ax)
    exponent = fit.exponents[name]
    values = np.linspace(-1.5, 1.5, 31) * (exponent.high - exponent.low) + exponent.value
    ax.plot(values, fit.profile(name, values), color="0.2", lw=1.2)
    ax.axvspan(exponent.low, exponent.high, color="0.9", lw=0)
    ax.axvline(exponent.value, color="0.5", lw=0.8)
    ax.set(xlabel=fit.symbol(name), ylabel="log likelihood lost", title=f"{fit.symbol(name)} = {exponent}")
    return ax


def plot_region(fit: CollapseFit, first: str, second: str, ax: Axes | None = None) -> Axes:
    """The joint confidence region of two exponents; the bars are their single intervals."""
    ax = axes(ax)
    ax.fill(*fit.region(first, second).T, facecolor="0.9", edgecolor="0.3", lw=1)
    x, y = fit.exponents[first], fit.exponents[second]
    ax.errorbar(
        x.value, y.value, [[y.value - y.low], [y.high - y.value]], [[x.value - x.low], [x.high - x.value]],
        fmt="o", ms=4, color="0.2", lw=1,
    )  # fmt: skip
    ax.set(xlabel=fit.symbol(first), ylabel=fit.symbol(second), title=f"{100 * fit.confidence:g} % jointly")
    return ax
