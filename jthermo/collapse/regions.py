"""After a fit: tests of stated exponents, joint confidence regions, likelihood profiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import special

from jthermo.collapse.correction_power import follow, joint_statistic
from jthermo.collapse.fit_state import FitState
from jthermo.collapse.result_types import TestResult
from jthermo.errors import InputError, finite_number


def joint_test(fit: FitState, exponents: dict[str, float]) -> TestResult:
    """F test of hypothetical exponents: Wald's, or by the likelihood if a power was fitted."""
    if not exponents:
        remedy = "name at least one, such as fit.test(learning_rate=2)"
        raise InputError("exponents", {}, remedy)
    for name, value in exponents.items():
        fit.require_testable(name)
        finite_number(name, value)
    number = len(exponents)
    if fit.fitted == fit.free:
        gap = np.array([fit.exponents[name].value - value for name, value in exponents.items()])
        covariance = fit.covariance_of(tuple(exponents))
        square = float(gap @ np.linalg.solve(covariance, gap))
    else:
        square = joint_statistic(fit, exponents)
    p_value = float(special.fdtrc(number, fit.degrees, square / number))
    return TestResult(p_value, square / number, (number, fit.degrees))


def joint_region(fit: FitState, first: str, second: str, num_points: int) -> np.ndarray:
    """Boundary of the joint confidence region of two exponents, (num_points, 2)."""
    for name in (first, second):
        fit.require_testable(name)
    if fit.fitted != fit.free:
        remedy = (
            "has no ellipse if a power was fitted too; use test, or give the correction one power"
        )
        raise InputError("region", (first, second), remedy)
    centre = [fit.exponents[first].value, fit.exponents[second].value]
    radius = np.sqrt(2 * special.fdtri(2, fit.degrees, fit.confidence))
    angle = np.linspace(0, 2 * np.pi, num_points)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    root = np.linalg.cholesky(fit.covariance_of((first, second)))
    return centre + (radius * root @ circle).T


def likelihood_profile(fit: FitState, name: str, values: np.ndarray) -> np.ndarray:
    """Log likelihood lost if one exponent is held at each value and all else is refitted."""
    fit.require_testable(name)
    likelihood, best = fit.likelihood, fit.solution
    for correction in fit.corrections:
        if name == correction.power_name:
            moved = [
                follow(likelihood, best, fit.directions, fit.curves, correction, float(value))
                for value in values
            ]
            return np.array([solution.objective for solution in moved]) - best.objective
    position = fit.directions.position(name)
    rest = np.delete(best.theta, position)
    room = fit.settings.refit_range
    wide = np.stack([rest - room, rest + room], axis=-1).reshape(-1, 2)
    lost = []
    for value in np.asarray(values, dtype=float):
        if not np.isfinite(value):
            raise InputError("values", float(value), "give finite values of the exponent")
        component = fit.directions.component(name, value)
        held = replace(likelihood, means=likelihood.means.holding(position, component))
        lost.append(held.minimise(held.solve(rest), wide).objective - best.objective)
    return np.array(lost)
