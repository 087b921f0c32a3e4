"""The pictures of a fit. Matplotlib is imported when one is drawn."""

from __future__ import annotations

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

    return plt.subplots(figsize=(5.0, 3.6), layout="constrained")[1]


def title(fit: CollapseFit) -> str:
    """τ = t·η^1.98·… and the verdict, for a panel's title."""
    verdict = {True: "", False: "  (does not collapse)", None: "  (undecided)"}[fit.collapsed]
    powers = [f"{name}^{e.value:.3g}" for name, e in fit.exponents.items() if np.isfinite(e.value)]
    return "τ = " + "·".join([fit.curves.time, *powers]) + verdict


def plot_collapse(fit: CollapseFit, ax: Axes | None = None) -> Axes:
    """Each condition's mean ± standard error against τ, over the fitted curve with its pointwise band."""
    ax = axes(ax)
    tau = np.exp(fit.log_tau)
    ax.fill_between(tau, fit.curve - 2 * fit.curve_error, fit.curve + 2 * fit.curve_error, color="0.85", lw=0)
    ax.plot(tau, fit.curve, color="0.4", lw=1)
    for condition in fit.curves.conditions:
        setting = dict(zip(fit.curves.controls, np.exp(condition.log_controls), strict=True))
        mean = np.nanmean(condition.values, axis=0)
        number = np.maximum(np.isfinite(condition.values).sum(axis=0), 1)
        error = np.nanstd(condition.values, axis=0) / np.sqrt(np.maximum(number - 1, 1))
        label = ", ".join(f"{name} {value:g}" for name, value in setting.items())
        ax.errorbar(
            fit.tau(np.exp(condition.log_time), **setting), mean, error, fmt=".", ms=3, lw=0.6, label=label
        )
    ax.set(xscale="log", xlabel="τ", ylabel=fit.curves.value, title=title(fit))
    ax.legend(fontsize="x-small", frameon=False)
    return ax
