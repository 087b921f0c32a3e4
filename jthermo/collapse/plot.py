"""The pictures of a fit. Matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from jthermo.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from jthermo.collapse.result import CollapseFit


WINDOWS = 12  # of log τ, in which residuals are averaged


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
    grown = [
        f"exp({fit.exponents[c.name].value:.3g}·({c.control}/{c.reference:g})^{c.power:.3g})"
        for c in fit.corrections
    ]
    return "τ = " + "·".join([fit.curves.time, *powers, *grown]) + verdict


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


def plot_residuals(fit: CollapseFit, ax: Axes | None = None, by: str | None = None) -> Axes:
    """Each condition's mean minus the curve ± standard error against τ, with the curve's band at 0.

    By a control: averages over windows of log τ and over all replicates at each of its values.
    """
    ax = axes(ax)
    ax.fill_between(np.exp(fit.log_tau), -2 * fit.curve_error, 2 * fit.curve_error, color="0.85", lw=0)
    ax.axhline(0.0, color="0.4", lw=1)
    if by is None:
        _draw(fit, ax, lambda tau, mean: mean - np.interp(np.log(tau), fit.log_tau, fit.curve))
    else:
        _draw_windows(fit, ax, by)
    ax.set(
        ylabel=f"{fit.curves.value} − curve", title=f"p = {fit.p_value:.2g}, misfit {100 * fit.misfit:.2g} %"
    )
    return ax


def _rescaled(fit: CollapseFit) -> Iterator[tuple[dict[str, float], np.ndarray, np.ndarray]]:
    """Setting, τ and rescaled values of each condition."""
    for condition in fit.curves.conditions:
        setting = dict(zip(fit.curves.controls, np.exp(condition.log_controls), strict=True))
        tau = fit.tau(np.exp(condition.log_time), **setting)
        yield setting, tau, fit.rescaled(condition.values, **setting)


def _draw(fit: CollapseFit, ax: Axes, shown: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Means with error bars, one colour a condition in the order of the controls."""
    number = len(fit.curves.conditions)
    for colour, (setting, tau, values) in zip(_colours(number), _rescaled(fit), strict=True):
        mean, error = _mean(values)
        label = ", ".join(f"{name} {value:g}" for name, value in setting.items())
        ax.errorbar(tau, shown(tau, mean), error, fmt=".", ms=3, lw=0.6, color=colour, label=label)
    _log_tau(ax)


def _draw_windows(fit: CollapseFit, ax: Axes, by: str) -> None:
    """Residuals in windows of log τ, a line for each value of a control."""
    edges = np.linspace(fit.log_tau[0], fit.log_tau[-1], WINDOWS + 1)
    found: dict[float, list[np.ndarray]] = {}
    for setting, tau, values in _rescaled(fit):
        residual = values - np.interp(np.log(tau), fit.log_tau, fit.curve)
        place = np.clip(np.searchsorted(edges, np.log(tau)) - 1, 0, WINDOWS - 1)
        parts = [_mean(residual[:, place == k], axis=1)[0] for k in range(WINDOWS)]
        found.setdefault(float(f"{setting[by]:.9g}"), []).append(np.stack(parts, axis=1))
    middle = np.exp(0.5 * (edges[1:] + edges[:-1]))
    for colour, value in zip(_colours(len(found)), sorted(found), strict=True):
        mean, error = _mean(np.concatenate(found[value]))
        label = f"{by} {value:g}"
        ax.errorbar(middle, mean, error, fmt=".-", ms=4, lw=0.8, color=colour, label=label)
    ax.legend(fontsize="x-small", frameon=False)
    _log_tau(ax)


def _mean(rows: np.ndarray, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error of what is finite; NaN where nothing is."""
    number = np.isfinite(rows).sum(axis=axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(rows, axis=axis) / number
        spread = np.nansum((rows - np.expand_dims(mean, axis)) ** 2, axis=axis)
        return mean, np.sqrt(spread / (number * np.maximum(number - 1, 1)))


def _colours(number: int) -> list[tuple[float, ...]]:
    from matplotlib import colormaps

    return [colormaps["viridis"](0.82 * k / max(number - 1, 1)) for k in range(number)]


def _log_tau(ax: Axes) -> None:
    from matplotlib.ticker import NullFormatter

    ax.set(xscale="log", xlabel="τ")
    ax.xaxis.set_minor_formatter(NullFormatter())  # over less than two decades they would overlap


def plot_profile(fit: CollapseFit, name: str, ax: Axes | None = None) -> Axes:
    """Log likelihood lost when one exponent is held and all else fitted again, over three intervals' width."""
    if name not in fit.fitted or not np.isfinite(fit.exponents[name].standard_error):
        remedy = f"has no interval to draw; name one of {list(fit.fitted)} that is identifiable"
        raise InputError("exponents", name, remedy)
    ax = axes(ax)
    exponent = fit.exponents[name]
    values = np.linspace(-1.5, 1.5, 31) * (exponent.high - exponent.low) + exponent.value
    ax.plot(values, fit.profile(name, values), color="0.2", lw=1.2)
    ax.axvspan(exponent.low, exponent.high, color="0.9", lw=0)
    ax.axvline(exponent.value, color="0.5", lw=0.8)
    held = [c for c in fit.corrections if c.power_name in fit.fitted and c.power_name != name]
    label = fit.symbol(name) + "".join(f" at {fit.symbol(c.power_name)} = {c.power:.3g}" for c in held)
    ax.set(xlabel=label, ylabel="log likelihood lost", title=f"{fit.symbol(name)} = {exponent}")
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
