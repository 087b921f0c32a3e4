"""The power w of a leading correction τ = t·c^p·exp(a·(c/c₀)^w), by its profile likelihood.

w bends the shifts of the curves and is followed outside the fit: at each w the exponents and the amplitude are fitted
again under the same noise, and f(w) − f(ŵ) = t²/2 bounds the interval. What p and a do on the way widens theirs: a
correction whose power is not known leaves p less known than one whose power is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from jthermo.errors import InputError

from .curve import Model, Solution
from .inference import search
from .input import Curves
from .prepare import Correction, Directions, directions, prepare, terms
from .result import CollapseFit, Exponent, Note

TRIED = 9  # powers between the ends, equally spaced in log |w|
ROUNDS = 2  # the noise is learnt anew at the first power found
EXACT = 0.001  # of w, to which its best value is found
AROUND = 5.0  # times ŵ and a part of it, between which a test of other exponents looks for w
CLOSE = 0.01  # of w, to which the ends of its interval are found


@dataclass(frozen=True)
class PowerFit:
    """The power's interval, and how far the other free unknowns move from its best value to its ends, (P,) each."""

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
            "give a power, or (low, high) of one sign to fit it between, such as (-4, -0.25)",
        )
    return low, high


def check_power(each: Correction, ends: tuple[float, float], ways: Directions, curves: Curves) -> None:
    """Refuse to fit a power where nothing can tell it.

    Raises:
        InputError: too few values of the control, a held amplitude, or controls that only vary together.
    """
    column = curves.controls.index(each.control)
    values = len({round(float(c.log_controls[column]), 9) for c in curves.conditions})
    remedy = None
    if values < 4:
        remedy = f"fitting a power takes four values of {each.control}, here are {values}; give one power"
    elif each.name not in ways.free:
        remedy = f"{each.name} is held by fixed=; free it, or give one power"
    elif not ways.known[ways.free.index(each.name)]:
        remedy = (
            f"{each.control} only varies together with other controls; leave those out, or give one power"
        )
    if remedy:
        raise InputError(f"correction[{each.control!r}]", ends, remedy)


def follow(
    model: Model, best: Solution, ways: Directions, curves: Curves, correction: Correction, power: float
) -> Solution:
    """The nearest minimum when the correction has another power, from the shifts of the best."""
    means, shifts = model.means, model.num_shifts
    first = np.unique(means.condition, return_index=True)[1]
    column = correction.column(curves, power)
    numbers = np.repeat(means.condition, np.diff(np.r_[means.starts, len(means.x)]))
    controls = means.controls.copy()
    controls[:, ways.position(correction.name)] = column[numbers]
    other = replace(model, means=replace(means, controls=controls))
    before, after = (each.binned(each.controls)[first] for each in (means, other.means))
    theta = np.linalg.lstsq(after, before @ best.theta[:shifts], rcond=None)[0]
    start = other.solve(np.r_[theta, best.theta[shifts:]])
    return other.minimise(start, np.stack([start.theta - 10, start.theta + 10], axis=-1))


def best_power(
    curves: Curves,
    scaled: tuple[str, ...],
    correction: Correction,
    others: tuple[Correction, ...],
    held: dict[str, float],
    ends: tuple[float, float],
) -> Correction:
    """The correction with the most likely power between two of one sign."""
    grid = np.geomspace(ends[0], ends[1], TRIED)
    found = replace(correction, power=float(grid[TRIED // 2]))
    for _ in range(ROUNDS):
        unknown = terms(curves, scaled, (*others, found))
        ways = directions(unknown, held)
        fitted = search(prepare(curves, unknown, ways, held))

        def loss(power: float) -> float:
            return follow(fitted.model, fitted.best, ways, curves, found, float(power)).objective  # noqa: B023

        k = int(np.argmin([loss(power) for power in grid]))
        low, high = sorted((float(grid[max(k - 1, 0)]), float(grid[min(k + 1, TRIED - 1)])))
        at = minimize_scalar(
            loss, bounds=(low, high), method="bounded", options={"xatol": EXACT * abs(grid[k])}
        )
        found = replace(found, power=float(at.x))
    return found


def power_interval(
    model: Model,
    best: Solution,
    ways: Directions,
    curves: Curves,
    correction: Correction,
    ends: tuple[float, float],
    t: float,
) -> PowerFit:
    """Where the likelihood has fallen by t²/2 on either side; infinite where it has not up to the end."""

    def beyond(power: float) -> float:
        return (
            follow(model, best, ways, curves, correction, float(power)).objective - best.objective - t**2 / 2
        )

    edges, moves, open_ = [], [], []
    for end in ends:
        open_.append(beyond(end) < 0)
        close = CLOSE * abs(correction.power)
        edges.append(end if open_[-1] else brentq(beyond, correction.power, end, xtol=close))
        theta = follow(model, best, ways, curves, correction, edges[-1]).theta
        moves.append(ways.basis @ (theta - best.theta))
    low, high = (-np.inf if open_[0] else edges[0]), (np.inf if open_[1] else edges[1])
    value = np.nan if all(open_) else correction.power
    return PowerFit(Exponent(value, float(low), float(high), float((high - low) / (2 * t))), *moves)


def with_power(fit: CollapseFit, power: PowerFit, t: float) -> CollapseFit:
    """The fit with the power of its last correction among the exponents, and what that leaves unknown in the others."""
    last, w = fit.corrections[-1], power.exponent
    exponents = dict(fit.exponents)
    moves = np.stack([power.to_low, power.to_high, np.zeros_like(power.to_low)])
    for name, below, above in zip(fit.free, -moves.min(axis=0), moves.max(axis=0), strict=True):
        e = exponents[name]
        if np.isfinite(e.value):
            low, high = (
                e.value - np.hypot(e.value - e.low, below),
                e.value + np.hypot(e.high - e.value, above),
            )
            error = np.hypot(e.standard_error, (above + below) / (2 * t))
            exponents[name] = Exponent(e.value, float(low), float(high), float(error))
    notes = fit.notes
    if not np.isfinite(w.standard_error):
        message = (
            f"the power of {last.control} in its correction is not bounded by the data within the range given"
        )
        notes += (Note("correction_power", f"{message}; the other intervals cover all powers that fit"),)
    return replace(
        fit,
        exponents={**exponents, last.power_name: w},
        identifiable={**fit.identifiable, last.power_name: bool(np.isfinite(w.value))},
        notes=notes,
    )


def joint_statistic(fit: CollapseFit, exponents: dict[str, float]) -> float:
    """Twice the log likelihood lost, least over w, plus Wald's square of the other exponents' gaps at that w.

    The exponents move along a bent line with w, so that one ellipse for all of them would refuse the truth.
    """
    last = fit.corrections[-1]
    index = [fit.free.index(name) for name in exponents if name != last.power_name]
    wanted = np.array([value for name, value in exponents.items() if name != last.power_name])
    inverse = np.linalg.inv(fit.covariance[np.ix_(index, index)])

    def lost(power: float) -> float:
        other = follow(fit.model, fit.solution, fit.ways, fit.curves, last, float(power))
        gap = (fit.ways.basis @ other.theta)[index] - wanted
        return 2 * max(other.objective - fit.solution.objective, 0.0) + float(gap @ inverse @ gap)

    if last.power_name in exponents:
        return lost(exponents[last.power_name])
    grid = last.power * np.geomspace(1 / AROUND, AROUND, 2 * TRIED - 1)
    k = int(np.argmin([lost(power) for power in grid]))
    low, high = sorted((float(grid[max(k - 1, 0)]), float(grid[min(k + 1, len(grid) - 1)])))
    at = minimize_scalar(
        lost, bounds=(low, high), method="bounded", options={"xatol": CLOSE * abs(last.power)}
    )
    return float(at.fun)
