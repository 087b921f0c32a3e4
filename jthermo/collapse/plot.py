"""The pictures of a fit. Matplotlib is imported when one is drawn, since importing it is slow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jthermo.collapse.fit_state import FitState
from jthermo.collapse.regions import joint_region, likelihood_profile
from jthermo.errors import InputError
from jthermo.labels import log_ticks, symbol, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Windows of log τ in which residuals are averaged for the picture. Chosen.
WINDOWS = 12
# Most conditions that the legend names all. Chosen.
NAMED = 12


def axes(ax: Axes | None) -> Axes:
    """The given axes, or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def title(fit: FitState) -> str:
    """τ = t η^1.98 … and the verdict, for a panel's title, as Matplotlib writes it."""
    verdict = {True: "", False: "\ndoes not collapse", None: "\nundecided"}[fit.collapsed]
    time = symbol(fit.curves.time)
    if "critical_point" in fit.exponents:
        time = f"({time} − {_minus(fit.exponents['critical_point'].value, 4)})"
    known = {name: fit.exponents[name].value for name in fit.curves.controls}
    factors = [_power(symbol(name), p) for name, p in known.items() if np.isfinite(p)]
    grown = [
        f"exp({_minus(fit.exponents[c.name].value)} "
        + _power(f"({symbol(c.control)}/{c.reference:.3g})", c.power)
        + ")"
        for c in fit.corrections
    ]
    return "τ = " + " ".join([time, *factors, *grown]) + verdict


def _power(base: str, power: float) -> str:
    return base if power == 1 else f"{base}$^{{{_minus(power)}}}$"


def _minus(number: float, digits: int = 3) -> str:
    """A number with a minus sign rather than a hyphen."""
    return f"{number:.{digits}g}".replace("-", "−")


def plot_collapse(fit: FitState, ax: Axes | None = None) -> Axes:
    """Each condition's mean ± standard error against τ, over the curve with its pointwise band.

    Without replicates the error bars are the published standard errors.
    """
    ax = axes(ax)
    tau = fit.curve_tau
    band = 2 * fit.curve_error
    ax.fill_between(tau, fit.curve - band, fit.curve + band, color="0.85", lw=0)
    ax.plot(tau, fit.curve, color="0.4", lw=1)
    _draw(fit, ax, lambda _, mean: mean)
    ax.set(ylabel=_ylabel(fit), title=title(fit))
    if fit.averages.bend:
        middle = np.exp(np.mean([c.log_controls for c in fit.curves.conditions], axis=0))
        setting = dict(zip(fit.curves.controls, middle, strict=True))
        low, high = fit.rescaled(np.array([0.0, 2 * fit.averages.bend]), **setting)
        # the fit's own axis, which shows values on either side of the offset
        ax.set_yscale("asinh", linear_width=float(high - low))
    elif fit.curves.log_above is not None:
        ax.set_yscale("log")
    ax.legend(fontsize="x-small", frameon=False)
    return ax


def _ylabel(fit: FitState) -> str:
    """The value in words, minus its offset and over the powers that scale it."""
    value = wrapped(fit.curves.long_name)
    heights = {name: fit.exponents.get(f"value_{name}") for name in fit.curves.controls}
    scale = " ".join(_power(symbol(name), e.value) for name, e in heights.items() if e is not None)
    if "offset" in fit.exponents:
        value = f"({value} − {_minus(fit.exponents['offset'].value, 4)})"
    return f"{value} / {scale}" if scale else value


def plot_residuals(fit: FitState, ax: Axes | None = None, by: str | None = None) -> Axes:
    """Each condition's mean minus the curve ± standard error against τ, with the curve's band at 0.

    With `by`, averages over windows of log τ and over all replicates at each value of that control.
    """
    ax = axes(ax)
    band = 2 * fit.curve_error
    ax.fill_between(fit.curve_tau, -band, band, color="0.85", lw=0)
    ax.axhline(0.0, color="0.4", lw=1)
    if by is None:
        _draw(fit, ax, lambda tau, mean: mean - np.interp(tau, fit.curve_tau, fit.curve))
    else:
        _draw_windows(fit, ax, by)
    verdict = f"p = {fit.p_value:.2g}, misfit {100 * fit.misfit:.2g} %"
    ax.set(ylabel=f"{wrapped(fit.curves.long_name)}\nminus the curve", title=verdict)
    return ax


def plot_scores(rows: Sequence[tuple[str, float, float]], ax: Axes | None = None) -> Axes:
    """Scores ± standard errors by name, on an axis that is linear near 0."""
    ax = axes(ax)
    names, scores, errors = zip(*reversed(rows), strict=True)
    ax.axvline(0.0, color="0.7", lw=0.8)
    ax.errorbar(scores, range(len(names)), xerr=errors, fmt="o", ms=4, color="0.2", lw=1)
    ax.set_yticks(range(len(names)), names)
    ax.set_xscale("symlog", linthresh=10)
    ax.set_xlabel("log likelihood of replicates left out, minus that of the best form")
    return ax


def _rescaled(
    fit: FitState,
) -> Iterator[tuple[dict[str, float], np.ndarray, np.ndarray, np.ndarray | None]]:
    """Setting, τ, rescaled values and rescaled published errors of each condition."""
    for condition in fit.curves.conditions:
        setting = dict(zip(fit.curves.controls, np.exp(condition.log_controls), strict=True))
        tau = fit.tau(fit.curves.clock.time(condition.log_time), **setting)
        values = fit.rescaled(condition.values, **setting)
        errors = condition.errors
        if errors is not None:
            errors = fit.rescaled(condition.values + errors, **setting) - values
        yield setting, tau, values, errors


def _draw(fit: FitState, ax: Axes, shown: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Means with error bars, one colour per condition in the order of the controls."""
    number = len(fit.curves.conditions)
    # many conditions have an entry in the legend for some of them, from the first to the last
    named = range(number) if number <= NAMED else np.linspace(0, number - 1, NAMED // 2).astype(int)
    for place, (colour, row) in enumerate(zip(_colours(number), _rescaled(fit), strict=True)):
        setting, tau, values, errors = row
        mean, error = _mean(values)
        error = error if errors is None else errors[0]
        words = ", ".join(f"{symbol(name)} = {value:.4g}" for name, value in setting.items())
        label = words if place in named else None
        ax.errorbar(tau, shown(tau, mean), error, fmt=".", ms=3, lw=0.6, color=colour, label=label)
    _log_tau(ax, fit)


def _draw_windows(fit: FitState, ax: Axes, by: str) -> None:
    """Residuals in windows of log τ, one line per value of a control."""
    # The curve's grid is even in log τ, or in asinh τ if τ takes both signs.
    number = len(fit.curve_tau)
    halves = np.linspace(0, number - 1, 2 * WINDOWS + 1)
    edges = np.interp(halves, np.arange(number), fit.curve_tau)
    edges, middle = edges[::2], edges[1::2]
    by_value: dict[float, list[np.ndarray]] = {}
    for setting, tau, values, _ in _rescaled(fit):
        residual = values - np.interp(tau, fit.curve_tau, fit.curve)
        place = np.clip(np.searchsorted(edges, tau) - 1, 0, WINDOWS - 1)
        parts = [_mean(residual[:, place == k], axis=1)[0] for k in range(WINDOWS)]
        by_value.setdefault(float(f"{setting[by]:.9g}"), []).append(np.stack(parts, axis=1))
    for colour, value in zip(_colours(len(by_value)), sorted(by_value), strict=True):
        mean, error = _mean(np.concatenate(by_value[value]))
        label = f"{symbol(by)} = {value:.4g}"
        ax.errorbar(middle, mean, error, fmt=".-", ms=4, lw=0.8, color=colour, label=label)
    ax.legend(fontsize="x-small", frameon=False)
    _log_tau(ax, fit)


def _mean(rows: np.ndarray, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error of the finite values; NaN if there are none."""
    number = np.isfinite(rows).sum(axis=axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(rows, axis=axis) / number
        spread = np.nansum((rows - np.expand_dims(mean, axis)) ** 2, axis=axis)
        return mean, np.sqrt(spread / (number * np.maximum(number - 1, 1)))


def _colours(number: int) -> list[tuple[float, ...]]:
    from matplotlib import colormaps

    return [colormaps["viridis"](0.82 * k / max(number - 1, 1)) for k in range(number)]


def _log_tau(ax: Axes, fit: FitState) -> None:
    """A logarithmic axis of τ, or a plain one if τ takes both signs."""
    ax.set(xlabel="τ")
    if fit.curve_tau[0] <= 0:
        return
    ax.set_xscale("log")
    log_ticks(ax.xaxis)


def _exponent(fit: FitState, name: str) -> str:
    """How an exponent is written in a picture: p(η) of the learning rate."""
    text = fit.symbol(name)
    for control in fit.curves.controls:
        text = text.replace(f"({control})", f"({symbol(control)})")
    return text


def plot_profile(fit: FitState, name: str, ax: Axes | None = None) -> Axes:
    """Log likelihood lost if one exponent is held, over three times the width of its interval."""
    if name not in fit.fitted or not np.isfinite(fit.exponents[name].standard_error):
        remedy = f"has no interval to draw; name one of {list(fit.fitted)} that is identifiable"
        raise InputError("exponents", name, remedy)
    ax = axes(ax)
    exponent = fit.exponents[name]
    values = np.linspace(-1.5, 1.5, 31) * (exponent.high - exponent.low) + exponent.value
    ax.plot(values, likelihood_profile(fit, name, values), color="0.2", lw=1.2)
    ax.axvspan(exponent.low, exponent.high, color="0.9", lw=0)
    ax.axvline(exponent.value, color="0.5", lw=0.8)
    held = [c for c in fit.corrections if c.power_name in fit.fitted and c.power_name != name]
    powers = "".join(f" at {_exponent(fit, c.power_name)} = {c.power:.3g}" for c in held)
    label = _exponent(fit, name) + powers
    ax.set(xlabel=label, ylabel="log likelihood lost", title=f"{_exponent(fit, name)} = {exponent}")
    return ax


def plot_region(fit: FitState, first: str, second: str, ax: Axes | None = None) -> Axes:
    """The joint confidence region of two exponents; the bars are their single intervals."""
    ax = axes(ax)
    ax.fill(*joint_region(fit, first, second, 200).T, facecolor="0.9", edgecolor="0.3", lw=1)
    x, y = fit.exponents[first], fit.exponents[second]
    across = [[x.value - x.low], [x.high - x.value]]
    upright = [[y.value - y.low], [y.high - y.value]]
    ax.errorbar(x.value, y.value, upright, across, fmt="o", ms=4, color="0.2", lw=1)
    ax.set(
        xlabel=_exponent(fit, first),
        ylabel=_exponent(fit, second),
        title=f"{100 * fit.confidence:g} % jointly",
    )
    return ax
