"""Fits the power w of a correction to scaling, τ = t·c^p·exp(a·(c/c₀)^w).

w bends the shifts of the curves and is varied outside the fit: at each w the exponents and the
amplitude are fitted again under the same noise, and f(w) − f(ŵ) = t²/2 gives the limits of its
interval. The change of p and a between these limits widens their intervals: if w is not known, p is
known less well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from jthermo.collapse.averages import average
from jthermo.collapse.fit_state import FitState
from jthermo.collapse.forms import Form
from jthermo.collapse.likelihood import CurveLikelihood, Solution
from jthermo.collapse.read import Curves
from jthermo.collapse.result_types import Exponent, Note
from jthermo.collapse.search import Optimum, search
from jthermo.collapse.settings import Settings
from jthermo.collapse.unknowns import Correction, Directions, find_directions, list_unknowns
from jthermo.errors import InputError

State = TypeVar("State", bound=FitState)


@dataclass(frozen=True)
class PowerFit:
    """The interval of the power.

    Attributes:
        exponent: w with its interval.
        to_low: change of the other free unknowns from the best w to its lower end, (P,).
        to_high: the same to its upper end, (P,).
    """

    exponent: Exponent
    to_low: np.ndarray
    to_high: np.ndarray


def power_ends(name: str, pair: object) -> tuple[float, float]:
    """The range of powers that a user gave."""
    try:
        low, high = (float(end) for end in pair)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not (np.isfinite([low, high]).all() and low < high and low * high > 0):
        raise InputError(
            f"correction[{name!r}]",
            pair,
            "give a power, or a range (low, high) of one sign to fit it in, such as (-4, -0.25)",
        )
    return low, high


def check_power(
    correction: Correction,
    ends: tuple[float, float],
    directions: Directions,
    curves: Curves,
    settings: Settings,
) -> None:
    """Refuse to fit a power that the data cannot determine.

    Raises:
        InputError: there are too few values of the control, the amplitude is held, or the control
            varies only together with others.
    """
    control = correction.control
    column = curves.controls.index(control)
    values = len({round(float(c.log_controls[column]), 9) for c in curves.conditions})
    remedy = None
    if values < settings.power_min_values:
        remedy = (
            f"fitting a power takes four values of {control}, here are {values}; give one power"
        )
    elif correction.name not in directions.free:
        remedy = f"{correction.name} is held by fixed=; free it, or give one power"
    elif not directions.known[directions.free.index(correction.name)]:
        remedy = (
            f"{control} varies only together with other controls; omit those, or give one power"
        )
    if remedy:
        raise InputError(f"correction[{control!r}]", ends, remedy)


def follow(
    likelihood: CurveLikelihood,
    best: Solution,
    directions: Directions,
    curves: Curves,
    correction: Correction,
    power: float,
) -> Solution:
    """The nearest minimum if the correction has another power, starting at the best shifts."""
    means, shifts = likelihood.means, likelihood.num_shifts
    first = np.unique(means.condition, return_index=True)[1]
    column = correction.column(curves, power)
    numbers = means.condition[means.bin_of]
    controls = means.controls.copy()
    controls[:, directions.position(correction.name)] = column[numbers]
    other = replace(likelihood, means=replace(means, controls=controls))
    before, after = (m.binned(m.controls)[first] for m in (means, other.means))
    theta = np.linalg.lstsq(after, before @ best.theta[:shifts], rcond=None)[0]
    start = other.solve(np.r_[theta, best.theta[shifts:]])
    room = likelihood.settings.refit_range
    return other.minimise(start, np.stack([start.theta - room, start.theta + room], axis=-1))


def _minimise_over(
    loss: Callable[[float], float], grid: np.ndarray, tolerance: Callable[[float], float]
) -> tuple[float, float]:
    """Place and value of the least loss: the best grid point, refined between its neighbours."""
    k = int(np.argmin([loss(power) for power in grid]))
    low, high = sorted((float(grid[max(k - 1, 0)]), float(grid[min(k + 1, len(grid) - 1)])))
    least = minimize_scalar(
        loss,
        bounds=(low, high),
        method="bounded",
        options={"xatol": tolerance(float(grid[k]))},
    )
    return float(least.x), float(least.fun)


def best_power(
    curves: Curves,
    form: Form,
    correction: Correction,
    others: tuple[Correction, ...],
    fixed: dict[str, float],
    ends: tuple[float, float],
    settings: Settings,
) -> Correction:
    """The correction with the most likely power in a range of one sign."""
    grid = np.geomspace(ends[0], ends[1], settings.power_candidates)
    best = replace(correction, power=float(grid[settings.power_candidates // 2]))
    for _ in range(settings.power_rounds):
        unknowns = list_unknowns(curves, form, (*others, best))
        directions = find_directions(unknowns, fixed)
        optimum = search(average(curves, unknowns, directions, fixed, settings))
        best = _better_power(optimum, directions, curves, best, grid)
    return best


def _better_power(
    optimum: Optimum,
    directions: Directions,
    curves: Curves,
    correction: Correction,
    grid: np.ndarray,
) -> Correction:
    """The correction with the most likely power under a given noise."""
    likelihood, best = optimum.likelihood, optimum.best

    def loss(power: float) -> float:
        return follow(likelihood, best, directions, curves, correction, float(power)).objective

    accuracy = likelihood.settings.power_tolerance
    power, _ = _minimise_over(loss, grid, lambda w: accuracy * abs(w))
    return replace(correction, power=power)


def power_interval(
    likelihood: CurveLikelihood,
    best: Solution,
    directions: Directions,
    curves: Curves,
    correction: Correction,
    ends: tuple[float, float],
    t: float,
) -> PowerFit:
    """Where the log likelihood has fallen by t²/2 on either side; infinite if it never has."""

    def beyond(power: float) -> float:
        moved = follow(likelihood, best, directions, curves, correction, float(power))
        return moved.objective - best.objective - t**2 / 2

    limits, moves, open_ = [], [], []
    for end in ends:
        open_.append(beyond(end) < 0)
        xtol = likelihood.settings.power_limit_tolerance * abs(correction.power)
        limits.append(end if open_[-1] else brentq(beyond, correction.power, end, xtol=xtol))
        theta = follow(likelihood, best, directions, curves, correction, limits[-1]).theta
        moves.append(directions.basis @ (theta - best.theta))
    low, high = (-np.inf if open_[0] else limits[0]), (np.inf if open_[1] else limits[1])
    value = np.nan if all(open_) else correction.power
    exponent = Exponent(value, float(low), float(high), float((high - low) / (2 * t)))
    return PowerFit(exponent, *moves)


def with_power(fit: State, power: PowerFit, t: float) -> State:
    """The fit with the power of its last correction, and wider intervals of the other exponents."""
    last, w = fit.corrections[-1], power.exponent
    exponents = dict(fit.exponents)
    moves = np.stack([power.to_low, power.to_high, np.zeros_like(power.to_low)])
    sides = zip(fit.free, -moves.min(axis=0), moves.max(axis=0), strict=True)
    for name, below, above in sides:
        e = exponents[name]
        if np.isfinite(e.value):
            low = e.value - np.hypot(e.value - e.low, below)
            high = e.value + np.hypot(e.high - e.value, above)
            error = np.hypot(e.standard_error, (above + below) / (2 * t))
            exponents[name] = Exponent(e.value, float(low), float(high), float(error))
    notes = fit.notes
    if not np.isfinite(w.standard_error):
        message = (
            f"the data do not bound the power of {last.control} in its correction within the range "
            "given; the other intervals cover all powers that fit"
        )
        notes += (Note("correction_power", message),)
    return replace(
        fit,
        exponents={**exponents, last.power_name: w},
        identifiable={**fit.identifiable, last.power_name: bool(np.isfinite(w.value))},
        notes=notes,
    )


def joint_statistic(fit: FitState, exponents: dict[str, float]) -> float:
    """Twice the log likelihood lost plus Wald's square of the other exponents' gaps, least over w.

    The exponents move along a bent line with w, so one ellipse for all of them would reject the
    truth.
    """
    last, settings = fit.corrections[-1], fit.settings
    index = [fit.free.index(name) for name in exponents if name != last.power_name]
    wanted = np.array([value for name, value in exponents.items() if name != last.power_name])
    inverse = np.linalg.inv(fit.covariance[np.ix_(index, index)])

    def lost(power: float) -> float:
        moved = follow(fit.likelihood, fit.solution, fit.directions, fit.curves, last, float(power))
        gap = (fit.directions.basis @ moved.theta)[index] - wanted
        loss = 2 * max(moved.objective - fit.solution.objective, 0.0)
        return loss + float(gap @ inverse @ gap)

    if last.power_name in exponents:
        return lost(exponents[last.power_name])
    widest = settings.power_test_range
    grid = last.power * np.geomspace(1 / widest, widest, 2 * settings.power_candidates - 1)
    tolerance = settings.power_limit_tolerance * abs(last.power)
    return _minimise_over(lost, grid, lambda w: tolerance)[1]
