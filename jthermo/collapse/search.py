"""The search for the best exponents: with independent noise, then with the estimated noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from jthermo.collapse.averages import Averages
from jthermo.collapse.identifiability import apart
from jthermo.collapse.likelihood import CurveLikelihood, Solution, Whitener
from jthermo.collapse.noise_covariance import NoiseCovariance
from jthermo.collapse.noise_fit import (
    diagonal_blocks,
    learn_noise,
    published,
    rough_variance,
    with_common_noise,
    with_timing,
)
from jthermo.collapse.read import Curves
from jthermo.collapse.settings import Settings
from jthermo.collapse.spline import Lattice
from jthermo.collapse.starts import starts
from jthermo.errors import InputError


@dataclass(frozen=True)
class Optimum:
    """The best solution under the covariance that belongs to it.

    Attributes:
        likelihood: with that covariance.
        best: its best solution.
        rivals: other minima, best first.
        noise: covariance of one replicate.
        share: n_ij/(n_i n_j) of each block.
        bounds: of θ, (P, 2).
        variance: of each mean, as if its points were independent, (N,).
        strict: the optimum under published errors alone, by which the verdict is; None without.
    """

    likelihood: CurveLikelihood
    best: Solution
    rivals: list[Solution]
    noise: NoiseCovariance
    share: list[np.ndarray]
    bounds: np.ndarray
    variance: np.ndarray
    strict: Optimum | None = None

    def omega(self) -> np.ndarray:
        """Covariance of the means by the noise model, (N, N)."""
        out = np.zeros((len(self.likelihood.means.mean),) * 2)
        for rows, block in zip(self.noise.blocks, self.noise.covariances(self.share), strict=True):
            out[np.ix_(rows, rows)] = block
        return out


@dataclass(frozen=True)
class Basins:
    """Minima under point noise, where the search with the estimated noise begins.

    Attributes:
        likelihood: under point noise.
        minima: best first.
        bounds: of θ, (P, 2).
        variance: of each mean, as if its points were independent, (N,).
    """

    likelihood: CurveLikelihood
    minima: list[Solution]
    bounds: np.ndarray
    variance: np.ndarray


def search(averages: Averages) -> Optimum:
    """Scan, fit with point noise, estimate the covariance, fit again with it."""
    return refine(averages, first_basins(averages))


def first_basins(averages: Averages) -> Basins:
    """Scan all exponents, and follow the best starts to their minima under point noise."""
    settings, means = averages.settings, averages.means
    bounds = search_bounds(averages)
    variance = rough_variance(averages)
    lattice = Lattice(knot_spacing(averages), averages.broken)
    candidates = starts(means, variance, bounds, settings) if len(bounds) else [np.zeros(0)]
    whiten = Whitener.of(diagonal_blocks(averages, variance))
    white = CurveLikelihood(means, lattice, whiten, 1.0, settings)
    white, _ = white.with_best_stiffness(candidates[0])
    solutions = sorted((white.solve(theta) for theta in candidates), key=objective)
    minima = [
        white.minimise(start, bounds, tolerance=settings.coarse_tolerance)
        for start in distinct(solutions, lattice)[: settings.num_basins]
    ]
    best = min(minima, key=objective)
    minima += [
        white.minimise(white.solve(theta), bounds, tolerance=settings.coarse_tolerance)
        for theta in _elsewhere(best.theta, averages, bounds)
    ]
    return Basins(white, _comparing(white, distinct(minima, lattice)), bounds, variance)


def _elsewhere(theta: np.ndarray, averages: Averages, bounds: np.ndarray) -> list[np.ndarray]:
    """Exponents to begin from again: a step of the scan's grid away, and at other t_c and v₀.

    These change what the other exponents should be, so the scan may rank a better minimum low.
    """
    settings, means = averages.settings, averages.means
    first, ends = len(theta) - len(averages.limits), np.ptp(bounds, axis=1)
    places = np.linspace(0, 1, settings.start_places + 2)[1:-1]
    moves = [(i, low + x * (high - low)) for i, (low, high) in enumerate(bounds) for x in places]
    moves = [(i, value) for i, value in moves if i >= first]
    if means.lead is not None:
        points = settings.start_signed_grid[min(len(means.movers), 3) - 1]
        steps = [(i, sign * ends[i] / (points - 1)) for i in means.movers for sign in (-1, 1)]
        moves += [(i, theta[i] + step) for i, step in steps]
    starts = []
    for i, value in moves:
        other = theta.copy()
        other[i] = np.clip(value, *bounds[i])
        starts.append(other)
    return starts


def _comparing(likelihood: CurveLikelihood, minima: list[Solution]) -> list[Solution]:
    """The minima whose curves overlap and nearly coincide, if only the best one shifts them apart.

    Curves without overlap fit perfectly, and say nothing. Where other exponents bring them within
    a small share of their range, these are what a user looks for, and the verdict tells the rest.
    """
    settings = likelihood.settings
    if not apart(likelihood, minima[0]):
        return minima
    near = []
    for solution in minima[1:]:
        if apart(likelihood, solution):
            continue
        weight = likelihood.means.weight(solution.theta)
        miss = np.sqrt(np.mean(((likelihood.means.mean - solution.fitted) / weight) ** 2))
        at = likelihood.means.log_tau(solution.theta)
        if miss < settings.near_misfit * np.ptp(likelihood.curve(solution, at)):
            near.append(solution)
    return near or minima


def refine(averages: Averages, basins: Basins) -> Optimum:
    """Estimate the noise at the best minimum, and minimise again under it."""
    settings, bounds = averages.settings, basins.bounds
    best = basins.minima[0]
    strict = None
    if averages.errors is not None:
        strict = _strict(averages, basins, best)
        best = strict.best
    noise, share = learn_noise(averages, basins.likelihood, best)
    likelihood = replace(basins.likelihood, whiten=Whitener.of(noise.covariances(share)))
    likelihood, _ = likelihood.with_best_stiffness(best.theta)
    minima = _minima(likelihood, [basin.theta for basin in basins.minima], bounds)

    # The noise of leads is proportional to the slope of the curve, so it must follow the slope that
    # the fit finally uses.
    best = minima[0]
    for _ in range(settings.noise_rounds):
        noise, share = learn_noise(averages, likelihood, best, noise)
        likelihood = replace(likelihood, whiten=Whitener.of(noise.covariances(share)))
        likelihood, start = likelihood.with_best_stiffness(best.theta)
        likelihood, start, noise = with_common_noise(likelihood, start, noise, share)
        best = likelihood.minimise(start, bounds)
    if strict is not None:
        # What the misfit no longer hides may be a better minimum of the published errors too.
        strict = min(strict, _strict(averages, basins, best), key=lambda o: o.best.objective)

    worst = best.objective + settings.hopeless_loss
    near = [basin.theta for basin in minima[1:] if basin.objective < worst]
    rivals = [_minimum(likelihood, theta, bounds) for theta in near]
    rivals = distinct([best, *rivals], likelihood.lattice)[1:]
    return Optimum(likelihood, best, rivals, noise, share, bounds, basins.variance, strict)


def _strict(averages: Averages, basins: Basins, start: Solution) -> Optimum:
    """The optimum near a start if the published errors are all the noise there is."""
    noise, share = published(averages)
    likelihood = basins.likelihood
    if averages.log_step is not None:
        noise = with_timing(noise, averages, likelihood.pace(start))
        likelihood = replace(likelihood, whiten=Whitener.of(noise.covariances(share)))
    likelihood, at_start = likelihood.with_best_stiffness(start.theta)
    # Under independent errors the basins are at their bottom, but for the tolerance.
    best = likelihood.minimise(at_start, basins.bounds)
    rivals = basins.minima[1:]
    return Optimum(likelihood, best, rivals, noise, share, basins.bounds, basins.variance)


def _minima(
    likelihood: CurveLikelihood, thetas: list[np.ndarray], bounds: np.ndarray
) -> list[Solution]:
    """The distinct minima near these exponents, best first."""
    return distinct([_minimum(likelihood, theta, bounds) for theta in thetas], likelihood.lattice)


def _minimum(likelihood: CurveLikelihood, theta: np.ndarray, bounds: np.ndarray) -> Solution:
    tolerance = likelihood.settings.coarse_tolerance
    return likelihood.minimise(likelihood.solve(theta), bounds, tolerance=tolerance)


def distinct(solutions: list[Solution], lattice: Lattice) -> list[Solution]:
    """Best first, without those that shift the curves as a better one does."""
    kept: list[Solution] = []
    for solution in sorted(solutions, key=objective):
        gaps = [np.abs(solution.moved - other.moved).max(initial=0.0) for other in kept]
        if min(gaps, default=np.inf) > lattice.spacing:
            kept.append(solution)
    return kept


def objective(solution: Solution) -> float:
    """The number that is minimised."""
    return solution.objective


def search_bounds(averages: Averages) -> np.ndarray:
    """Range of θ, (P, 2): neighbouring curves keep some overlap, and values scale within reason.

    Together the shifts stay within `max_knots` knots, which bounds the memory.
    """
    means, settings = averages.means, averages.settings
    first = np.unique(means.condition, return_index=True)[1]
    columns = means.binned(means.controls)[first].T
    room = _room(averages) / max(len(columns), 1)
    bounds = []
    for column in columns:
        gaps = np.diff(np.unique(np.round(column, 9)))
        most = np.ptp(means.x) / np.median(gaps) if len(gaps) else settings.max_exponent
        bounds.append(min(_exponent_bound(float(most), settings), room / np.ptp(column)))
    bounds += [settings.least_range] * means.num_heights
    return np.concatenate([np.array([[-b, b] for b in bounds]).reshape(-1, 2), averages.limits])


def _room(averages: Averages) -> float:
    """Length in log τ by which the shifts may extend the curves."""
    means, settings = averages.means, averages.settings
    return settings.max_knots * knot_spacing(averages) - float(np.ptp(means.x))


def check_range(averages: Averages, curves: Curves, held: dict[str, float]) -> None:
    """Refuse curves too far apart to be compared: they would need too many knots.

    Args:
        averages: the averaged curves.
        curves: the data.
        held: exponents of τ that are held.

    Raises:
        InputError: held exponents or the recorded times put the curves too far apart, or a control
            has a value far beyond the others.
    """
    means, settings = averages.means, averages.settings
    room, length = _room(averages), float(np.ptp(means.x))
    if room <= 0:
        field, value = ("fixed", held) if any(held.values()) else (curves.time, curves.window)
        remedy = (
            f"the curves extend over e^{length:.3g} of τ, too far to be compared; give smaller "
            "exponents, or curves whose times are nearer to each other"
        )
        raise InputError(field, value, remedy)
    for name in curves.controls:
        column = curves.controls.index(name)
        logs = np.array([c.log_controls[column] for c in curves.conditions])
        gaps = np.diff(np.unique(np.round(logs, 9)))
        if name in held or not len(gaps):
            continue
        wanted = min(length / gaps.min(), settings.least_range)
        if wanted * np.ptp(logs) > room:
            far = float(np.exp(logs[np.argmax(np.abs(logs - np.median(logs)))]))
            remedy = "is too far from the other values to be compared with them; drop those rows"
            raise InputError(name, float(f"{far:.6g}"), remedy)


def _exponent_bound(most: float, settings: Settings) -> float:
    return min(max(most, settings.least_range), settings.max_exponent)


def knot_spacing(averages: Averages) -> float:
    """Distance of the knots: one per record of one curve, but at most `knots_per_curve`."""
    means, settings = averages.means, averages.settings
    x = means.binned(means.x)
    lengths = [np.ptp(x[means.condition == k]) for k in np.unique(means.condition)]
    points = np.median(np.bincount(means.condition))
    length = float(np.median(lengths)) or 1.0
    knots = min(max(float(points), settings.min_knots), settings.knots_per_curve)
    return length / knots
