"""Which form is worth trying where curves do not collapse: judged from how they miss each other.

The law is fitted again under the same noise with more freedom of one kind: controls that scale the
value too, a correction that fades along a control, or another law at late τ. A kind is named if it
takes away most of the misfit, and fits better than the other kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from jthermo.collapse.fit_state import FitState
from jthermo.collapse.identifiability import apart, residual_size
from jthermo.collapse.likelihood import CurveLikelihood, Solution, Whitener
from jthermo.collapse.means import Means
from jthermo.collapse.noise_fit import diagonal_blocks
from jthermo.collapse.search import first_basins
from jthermo.collapse.unknowns import Correction


def worth_trying(fit: FitState) -> str | None:
    """The form that explains most of the misfit of a refused collapse; None if none does."""
    if fit.collapsed is not False:
        return None
    settings, likelihood = fit.settings, _comparable(fit)
    now, misfit, _ = _minimum(fit, likelihood, [fit.solution.theta])
    trials = [(freedom.message, *freedom.tried(fit, likelihood)) for freedom in _freedoms(fit)]
    trials = [trial for trial in trials if np.isfinite(trial[2])]
    if not trials:
        return None
    message, best, left, freedom = min(trials, key=lambda trial: trial[1].objective)
    if now.objective - best.objective < settings.other_form_gain:
        return None
    # A curve that bends for the misfit leaves little of it, and then nothing beyond chance is left.
    chance = settings.other_form_errors * np.sqrt(2 * freedom)
    return message if left < max(settings.other_form_misfit * misfit, chance) else None


@dataclass(frozen=True)
class _Freedom:
    """Further unknowns: columns of log τ at the points, (n, a), and of the log value, (N, b)."""

    message: str
    shifts: np.ndarray
    heights: np.ndarray
    search: bool = False

    def tried(self, fit: FitState, likelihood: CurveLikelihood) -> tuple[Solution, float, float]:
        """The best solution with these unknowns, its misfit, and the degrees of freedom."""
        means, theta = likelihood.means, fit.solution.theta
        first, second = means.num_shifts, means.num_shifts + means.num_heights
        more = replace(
            means,
            controls=np.column_stack([means.controls, self.shifts]),
            heights=np.column_stack([means.heights, self.heights]),
        )
        start = np.insert(theta, second, np.zeros(self.heights.shape[1]))
        starts = [np.insert(start, first, np.zeros(self.shifts.shape[1]))]
        if self.search:
            averages = replace(fit.averages, means=more, scaled=True)
            starts += [solution.theta for solution in first_basins(averages).minima]
        return _minimum(fit, replace(likelihood, means=more), starts)


def _comparable(fit: FitState) -> CurveLikelihood:
    """The likelihood with 0 at 0, so that values can be scaled, under the noise alone."""
    averages, likelihood = fit.averages, fit.likelihood
    means = likelihood.means
    if not averages.scaled and fit.curves.log_above is None:
        means = replace(means, mean=means.mean + averages.centre / averages.scale)
    if averages.errors is None:
        return replace(likelihood, means=means)
    whiten = Whitener.of(diagonal_blocks(averages, averages.errors**2))
    return replace(likelihood, means=means, whiten=whiten)


def _minimum(
    fit: FitState, likelihood: CurveLikelihood, starts: list[np.ndarray]
) -> tuple[Solution, float, float]:
    """The best solution from these starts, χ² beyond its degrees of freedom, and these."""
    limits, room = fit.averages.limits, fit.settings.refit_range
    coarse = fit.settings.coarse_tolerance
    minima = []
    for theta in starts:
        middle = theta[: len(theta) - len(limits), None]
        bounds = np.concatenate([middle + np.array([[-room, room]]), limits])
        for _ in range(2):
            trial, start = likelihood.with_best_stiffness(theta)
            solution = trial.minimise(start, bounds, tolerance=coarse)
            theta = solution.theta
        minima.append((solution, trial))
    best, under = min(minima, key=lambda pair: (apart(pair[1], pair[0]), pair[0].objective))
    square, freedom = residual_size(under, best)
    # Curves that are shifted apart fit anything, and explain nothing.
    misfit = np.inf if apart(under, best) else square - freedom
    return best, misfit, freedom


def _freedoms(fit: FitState) -> Iterator[_Freedom]:
    """What may be tried in addition to the form of the fit."""
    means, curves = fit.likelihood.means, fit.curves
    of_bin, of_point = means.condition, means.condition[means.bin_of]
    levels = {name: fit.averages.levels[name] for name in curves.controls}
    levels = {name: level for name, level in levels.items() if np.ptp(level) > 1e-9}
    if not levels:
        # controls of equal values to rounding
        return
    scaled = [name for name in levels if f"value_{name}" not in fit.exponents]
    none, empty = np.zeros((len(of_point), 0)), np.zeros((len(of_bin), 0))
    if scaled:
        columns = np.column_stack([levels[name][of_bin] for name in scaled])
        logs = ' and scale="log"' if _in_proportion(fit) else ""
        message = f"the misfit follows the value: rescale={scaled}{logs}"
        yield _Freedom(message, none, columns, search=True)
    for name in levels:
        if f"correction_{name}" in fit.exponents:
            continue
        column = curves.controls.index(name)
        values = np.exp([condition.log_controls[column] for condition in curves.conditions])
        for power, where in ((-1.0, "small"), (1.0, "large")):
            fading = Correction(name, power, float(values.min() if power < 0 else values.max()))
            several = len(np.unique(values)) >= fit.settings.power_min_values
            ends = tuple(sorted((4 * power, 0.25 * power))) if several else power
            message = f"the misfit is that of {where} {name}: correction={{{name!r}: {ends}}}"
            shift = fading.column(curves)[of_point, None]
            yield _Freedom(message, shift, empty)
    late = _late(means, fit.solution)
    names = list(levels)
    shift = np.column_stack([late * levels[name][of_point] for name in names])
    message = (
        f"the law changes along τ: clock_window, or compare with Crossover(Form(), "
        f"Form(rescale={names})), which has two clocks"
    )
    # Another exponent late differs from another one early by a constant, another scale does not.
    for share in (means.binned(late), 1 - means.binned(late)):
        height = np.column_stack([share * levels[name][of_bin] for name in names])
        yield _Freedom(message, shift, height)


def _late(means: Means, best: Solution) -> np.ndarray:
    """How late every point is, (n,): 0 in the first third of log τ, 1 in the last, even between."""
    place = means.log_tau(best.theta)
    low, high = np.quantile(place, (1 / 3, 2 / 3))
    return np.clip((place - low) / max(high - low, 1e-300), 0.0, 1.0)


def _in_proportion(fit: FitState) -> bool:
    """Whether the noise grows in proportion to positive values over a decade or more."""
    curves = fit.curves
    if curves.log_above is not None or max(len(c.labels) for c in curves.conditions) < 2:
        return False
    rows = [c.values for c in curves.conditions if len(c.labels) > 1]
    if min(float(np.nanmin(c.values)) for c in curves.conditions) <= 0:
        return False
    mean = np.log(np.concatenate([np.nanmean(values, axis=0) for values in rows]))
    spread = np.concatenate([np.nanstd(values, axis=0) for values in rows])
    seen = np.isfinite(mean) & (spread > 0)
    if seen.sum() < 3 or np.ptp(mean[seen]) < np.log(10):
        return False
    return float(np.polyfit(mean[seen], np.log(spread[seen]), 1)[0]) > 0.5
