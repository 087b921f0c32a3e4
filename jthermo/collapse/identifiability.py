"""Identifiability: which combinations of exponents the data determine.

A fitted exponent means nothing if the curve is flat, if the curves overlap only by extrapolation,
or if a shift by a whole feature fits as well. So the objective is followed along the eigenvectors
of its Hessian through the whole range of exponents. The information is compared with that of a
curve without a roughness penalty, which extrapolates nothing. Other minima are judged by their
residuals alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special
from scipy.optimize import minimize_scalar

from jthermo.collapse.likelihood import CurveLikelihood, Solution
from jthermo.collapse.result_types import Note
from jthermo.collapse.settings import Settings
from jthermo.collapse.spline import Lattice, penalty
from jthermo.collapse.unknowns import Directions


@dataclass(frozen=True)
class Identified:
    """Which directions of θ are determined.

    Attributes:
        axes: orthonormal directions of θ in columns, (P, P).
        known: which of them are determined, (P,).
        reaches: least steps along each to the limits of its interval, below and above, (P, 2).
        notes: why others are not determined.
        bounds: range of θ that was searched, (P, 2).
        compared: whether the curves overlap enough for any verdict.
    """

    axes: np.ndarray
    known: np.ndarray
    reaches: np.ndarray
    notes: tuple[Note, ...]
    bounds: np.ndarray
    compared: bool = True

    def followed(self, theta: np.ndarray, settings: Settings) -> np.ndarray:
        """Known directions that no end of a range keeps a fit from following, (P, any)."""
        stopped = np.abs(self.axes.T @ _at_bound(theta, self.bounds, settings))
        return self.axes[:, self.known & (stopped < settings.max_foreign_share)]


def identify(
    likelihood: CurveLikelihood,
    best: Solution,
    rivals: list[Solution],
    spread: np.ndarray,
    t: float,
    bounds: np.ndarray,
    confidence: float,
    directions: Directions,
) -> Identified:
    """Judge every direction of θ.

    Args:
        likelihood: the final one.
        best: its best solution.
        rivals: other minima.
        spread: covariance of θ, (P, P).
        t: quantile of the intervals.
        bounds: range of θ that was searched, (P, 2).
        confidence: of the intervals.
        directions: of the unknowns.
    """
    num, settings = len(best.theta), likelihood.settings
    shares = overlaps(likelihood, best)
    compared = bool(shares.mean() > settings.min_mean_overlap)
    poor: list[Note] = []
    if shares.min() < settings.min_overlap:
        share = f"{100 * shares.min():.0f} %"
        message = f"at the best exponents a curve shares only {share} of its length with others"
        poor.append(Note("poor_overlap", message))
    if not num:
        axes, reaches = np.zeros((0, 0)), np.zeros((0, 2))
        return Identified(axes, np.zeros(0, bool), reaches, tuple(poor), bounds, compared)
    hessian, _ = likelihood.information(best)
    _, axes = np.linalg.eigh(hessian)
    known = np.ones(num, bool)
    reaches, halves = np.zeros((num, 2)), np.zeros(num)
    given = np.arange(num) >= num - len(directions.limits)
    # The losses in the settings are those of a 95 % interval.
    stretch = float(special.ndtri(0.5 + confidence / 2) / special.ndtri(0.975)) ** 2
    notes: list[Note] = []
    loose, flat = _without_penalty(likelihood, best), _featureless(likelihood, best)
    if flat:
        message = "a constant fits as well as any curve, so the curves can be shifted at will"
        notes.append(Note("flat_curve", message))
    ridges = _power_law(likelihood, best)
    if ridges.size and not flat:
        message = (
            "a power law fits as well as any curve, so an exponent of the time has the same effect "
            "as one of the value; see combinations"
        )
        notes.append(Note("power_law_curve", message))
        # The ridges are axes of their own, so that the rest is known as well as it can be.
        axes = _along_first(ridges, spread)
    for d, axis in enumerate(axes.T):
        error = np.sqrt(max(axis @ spread @ axis, 0.0))
        halves[d] = t * error
        firm = axis @ loose @ axis * settings.max_extrapolation**2
        extrapolated = firm < axis @ hessian @ axis
        along_ridge = d < ridges.shape[1]
        known[d] = np.isfinite(error) and not extrapolated and not flat and not along_ridge
        if known[d]:
            reach = _reach(likelihood, best, axis, t * error, bounds, given, stretch)
            known[d] = reach is not None
            reaches[d] = reach or (0.0, 0.0)
    if poor:
        notes += poor
        known &= compared
    ended = _at_bound(best.theta, bounds, settings)
    beyond = np.abs(np.linalg.pinv(hessian, hermitian=True) @ likelihood.slope(best))
    # The end of a range that was given is an answer, if what fits best is within noise of it.
    answered = given & (beyond < t * np.sqrt(np.maximum(np.diag(spread), 0.0)))
    if ended.any():
        reached = zip(
            directions.free, directions.numbers(best.theta), directions.basis, strict=True
        )
        where = ", ".join(f"{n} = {value:.4g}" for n, value, row in reached if (row * ended).any())
        message = f"the end of the range that was searched was reached: {where}"
        notes.append(Note("at_bound", message))
        known &= np.abs(axes.T @ (ended & ~answered)) < settings.max_foreign_share
    for rival in rivals:
        away = np.abs(axes.T @ (rival.theta - best.theta))
        # A minimum inside the interval of every direction is no other answer.
        if (away > halves).any() and _fits_as_well(likelihood, best, rival):
            known &= away < settings.max_foreign_share * away.max()
            found, other = (
                ", ".join(f"{x:.4g}" for x in directions.numbers(solution.theta))
                for solution in (best, rival)
            )
            message = f"{', '.join(directions.free)} = {other} fit nearly as well as {found}"
            notes.append(Note("second_minimum", message))
            break
    return Identified(axes, known, reaches, tuple(notes), bounds, compared)


def _at_bound(theta: np.ndarray, bounds: np.ndarray, settings: Settings) -> np.ndarray:
    """Which exponents ran to the end of their range, (P,)."""
    room = np.minimum(theta - bounds[:, 0], bounds[:, 1] - theta)
    return room < settings.bound_margin * np.ptp(bounds, axis=1)


def _reach(
    likelihood: CurveLikelihood,
    best: Solution,
    axis: np.ndarray,
    half: float,
    bounds: np.ndarray,
    given: np.ndarray,
    stretch: float,
) -> tuple[float, float] | None:
    """How far the interval must extend along a line, (low, high); None if nothing is known.

    Mostly f is a parabola, and ± `half` is enough: (0, 0). If f is flatter, the result is where f
    has lost what it should at the limits. If f comes back down beyond a rise, or stays low up to
    the end of the range or over much of it, nothing is known. But on one side it may stay low up to
    the end of a range that was given, (P,).
    """
    settings = likelihood.settings
    losses = (stretch * settings.min_loss, stretch * settings.limit_loss)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.where(axis[:, None] != 0, (bounds - best.theta[:, None]) / axis[:, None], np.inf)
    ends = np.sort(np.where(np.isfinite(steps), steps, np.array([-np.inf, np.inf])), axis=1)
    first, last = int(np.argmax(ends[:, 0])), int(np.argmin(ends[:, 1]))
    low, high = ends[first, 0], ends[last, 1]
    if 2 * half > settings.max_interval_share * max(high, -low):
        return None

    compared = not apart(likelihood, best)

    def lost(step: float) -> float:
        trial = likelihood.solve(best.theta + step * axis)
        loss = trial.objective - best.objective
        # Curves that are shifted apart fit anything, and are no rival to curves that overlap.
        doubtful = compared and loss < settings.min_loss
        return np.inf if doubtful and apart(likelihood, trial) else loss

    line = np.linspace(low, high, settings.scan_points)
    if all(lost(step) >= losses[0] for step in line if abs(step) > 2 * half):
        return 0.0, 0.0
    widest = settings.max_reach_share * (high - low)
    below = _limit(lost, low, half, widest, losses, settings)
    above = _limit(lost, high, half, widest, losses, settings)
    if below == np.inf and above != np.inf and given[first]:
        below = -low if -low > half else 0.0
    if above == np.inf and below != np.inf and given[last]:
        above = high if high > half else 0.0
    if below is None or above is None or np.inf in (below, above):
        return None
    return -below, above


def _limit(
    lost: Callable[[float], float],
    end: float,
    half: float,
    widest: float,
    losses: tuple[float, float],
    settings: Settings,
) -> float | None:
    """Distance of the limit on one side: 0 if `half` is enough, ∞ or None if there is none.

    It is ∞ if f stays low up to the end.

    `losses` are those that other exponents must reach, and that at the limit.
    """
    far, near = losses
    line = np.linspace(0.0, end, settings.scan_points + 1)
    loss = np.array([lost(step) for step in line])
    out = np.flatnonzero(loss >= far)
    if not len(out):
        return np.inf
    if np.any(loss[out[0] :] < far) or abs(line[out[0]]) > widest:
        return None
    rising = np.maximum.accumulate(loss[: out[0] + 1])
    inside = np.interp(near, rising, np.abs(line[: out[0] + 1]))
    return float(inside) if inside > half else 0.0


def _featureless(likelihood: CurveLikelihood, best: Solution) -> bool:
    """Whether a constant would do, so that the shifts follow the noise.

    A curve of q numbers gains about q in χ² by chance.
    """
    means = likelihood.means
    target = likelihood.whiten(means.target(best.theta))
    level = likelihood.whiten(means.weight(best.theta))
    constant = target @ target - (level @ target) ** 2 / (level @ level)
    left, freedom = residual_size(likelihood, best)
    chance = likelihood.settings.min_feature_gain * (len(target) - freedom)
    return bool(constant - left < chance)


def _power_law(likelihood: CurveLikelihood, best: Solution) -> np.ndarray:
    """Directions of θ, (P, ridges), that a curve τᵃ leaves open: p rises by 1 while q falls by a.

    There are none unless a power law fits as well as any curve, as a constant does in
    :func:`_featureless`.
    """
    means = likelihood.means
    both = [
        (i, j)
        for i, shift in enumerate(means.controls[means.starts].T)
        for j, height in enumerate(means.heights.T, means.num_shifts)
        if np.allclose(shift, height)
    ]
    place = means.log_tau(best.theta)
    log_tau = means.binned(place)
    if means.lead is not None:
        if np.ptp(np.sign(place)):
            return np.zeros((len(best.theta), 0))
        log_tau = means.binned(np.log(np.abs(np.sinh(place))))
    if not both:
        return np.zeros((len(best.theta), 0))
    log_tau = log_tau - log_tau.mean()
    weight = means.weight(best.theta)
    target, unit = likelihood.whiten(means.target(best.theta)), means.log_unit

    def misfit(power: float) -> float:
        """χ² of the best law τᵃ, or of a line in log τ, whose slope is `power`."""
        height = np.exp(power * log_tau) if unit is None else np.ones_like(log_tau)
        law = likelihood.whiten(weight * height)
        rest = (
            target if unit is None else target - likelihood.whiten(weight * power / unit * log_tau)
        )
        return float(rest @ rest - (law @ rest) ** 2 / (law @ law))

    most = likelihood.settings.max_power
    grid = np.linspace(-most, most, 33)
    k = int(np.clip(np.argmin([misfit(a) for a in grid]), 1, len(grid) - 2))
    power = float(minimize_scalar(misfit, bounds=(grid[k - 1], grid[k + 1]), method="bounded").x)
    left, freedom = residual_size(likelihood, best)
    chance = likelihood.settings.min_feature_gain * (len(target) - freedom)
    if misfit(power) - left >= chance:
        return np.zeros((len(best.theta), 0))
    ridges = np.zeros((len(best.theta), len(both)))
    for column, (i, j) in enumerate(both):
        ridges[i, column], ridges[j, column] = 1.0, -power
    return ridges


def _along_first(directions: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Orthonormal axes, (P, P): the directions first, then those of the rest of the covariance."""
    first, _ = np.linalg.qr(directions)
    rest = np.linalg.svd(first, full_matrices=True)[0][:, first.shape[1] :]
    _, turned = np.linalg.eigh(rest.T @ spread @ rest)
    return np.column_stack([first, rest @ turned])


def _without_penalty(likelihood: CurveLikelihood, best: Solution) -> np.ndarray:
    """Information on θ if the curve is free in every cell of a lattice, (P, P)."""
    means = likelihood.means
    lengths = [np.ptp(means.log_time[means.condition == k]) for k in np.unique(means.condition)]
    length = np.median(lengths)
    at = means.log_tau(best.theta)
    cell = (length or 1.0) / likelihood.settings.free_cells
    lattice = Lattice(max(cell, likelihood.lattice.spacing), likelihood.lattice.broken)
    basis = likelihood.whiten(means.basis(lattice, best.theta, lattice.span(at)))
    white = likelihood.whiten(likelihood.gradient(best))
    left = white - basis @ np.linalg.lstsq(basis, white, rcond=1e-8)[0]
    return left.T @ left


def apart(likelihood: CurveLikelihood, solution: Solution) -> bool:
    """Whether the curves are shifted apart, so that little of them is compared."""
    return bool(overlaps(likelihood, solution).mean() < likelihood.settings.min_overlap)


def overlaps(likelihood: CurveLikelihood, best: Solution) -> np.ndarray:
    """Share of each curve's records that lie within the span of another curve, (K,)."""
    at = likelihood.means.binned(likelihood.means.log_tau(best.theta))
    condition = likelihood.means.condition
    parts = [at[condition == k] for k in np.unique(condition)]
    shares = []
    for k, mine in enumerate(parts):
        covered = np.zeros(len(mine), bool)
        for j, other in enumerate(parts):
            if j != k:
                covered |= (mine >= other.min()) & (mine <= other.max())
        shares.append(covered.mean())
    return np.array(shares)


def _fits_as_well(likelihood: CurveLikelihood, best: Solution, rival: Solution) -> bool:
    """Whether the rival's residuals are within chance of the best ones, where its curves overlap.

    The overlap must show half the curve's features.
    """
    settings = likelihood.settings
    if rival.objective > best.objective + settings.max_rival_loss:
        return False
    size, freedom = residual_size(likelihood, best)
    other, other_freedom = residual_size(likelihood, rival)
    if min(freedom, other_freedom) < settings.min_rival_freedom:
        return False
    chance = 1 + settings.max_rival_errors * np.sqrt(2 / other_freedom)
    if other / other_freedom > size / freedom * chance:
        return False
    at = likelihood.means.binned(likelihood.means.log_tau(rival.theta))
    condition = likelihood.means.condition
    spans = [(at[condition == k].min(), at[condition == k].max()) for k in np.unique(condition)]
    shared = np.sum([(at >= low) & (at <= high) for low, high in spans], axis=0) >= 2
    if overlaps(likelihood, rival).min() < settings.min_overlap or not shared.any():
        return False
    features = settings.min_rival_features * np.ptp(rival.fitted)
    return bool(np.ptp(rival.fitted[shared]) > features)


def residual_size(likelihood: CurveLikelihood, solution: Solution) -> tuple[float, float]:
    """Weighted sum of squares and its degrees of freedom."""
    basis = solution.whitened_basis
    resid = likelihood.residual(solution)
    gram = basis.T @ basis
    normal = gram + likelihood.stiffness * penalty(solution.span)
    used = np.trace(np.linalg.solve(normal, gram))
    return float(resid @ resid), float(len(resid) - used)
