"""From the prepared numbers to exponents, intervals and verdict: the story of one fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from jthermo.collapse import noise_covariance as cov
from jthermo.collapse import noise_fit as noises
from jthermo.collapse.averages import Directions, Prepared
from jthermo.collapse.exponent_drift import Drift, drift
from jthermo.collapse.identifiability import Identified, identify
from jthermo.collapse.lack_of_fit import UNSEEN, LackOfFit, contrasts, lack_of_fit
from jthermo.collapse.likelihood import MAX_KNOTS, Lattice, Model, Solution, Whitener, penalty
from jthermo.collapse.result import Exponent
from jthermo.collapse.starts import starts

BASINS = 5  # minima that are followed to their bottom
HOPELESS = 150.0  # log likelihood behind the best, from which no minimum comes near it under a better noise
REMAINS = 0.1  # of a deviation that the fit should have taken out of the residuals
MOST_DECEIT = 0.5  # of the information, that may be the noise of the slope
WIDEST = 12.0  # largest exponent looked for
HIGHEST = 4.0  # largest exponent of the value's scale looked for


@dataclass(frozen=True)
class Inference:
    """Everything the result needs; the curve in the units of the prepared data."""

    model: Model
    best: Solution
    exponents: list[Exponent]
    covariance: np.ndarray  # of θ
    degrees: float
    outcome: LackOfFit
    identified: Identified
    drift: Drift
    common_noise: float
    grid: np.ndarray
    curve: np.ndarray
    curve_error: np.ndarray


@dataclass(frozen=True)
class Fitted:
    """The best solution under the covariance that belongs to it, with its rivals."""

    model: Model
    best: Solution
    rivals: list[Solution]
    noise: cov.Noise
    share: list[np.ndarray]
    bounds: np.ndarray
    variance: np.ndarray  # of each mean, as if its points were independent

    def omega(self) -> np.ndarray:
        """Covariance of the means by the model, (N, N)."""
        out = np.zeros((len(self.model.means.mean),) * 2)
        for rows, block in zip(self.noise.blocks, self.noise.covariances(self.share), strict=True):
            out[np.ix_(rows, rows)] = block
        return out


def search(ready: Prepared) -> Fitted:
    """Scan, fit with point noise, learn the covariance, fit again with it."""
    means = ready.means
    bounds = search_bounds(ready)
    variance = noises.rough_variance(ready)
    lattice = Lattice(knot_spacing(ready))
    white = Model(means, lattice, Whitener.of(noises.diagonal_blocks(ready, variance)), 1.0)
    candidates = starts(means, variance, bounds) if len(bounds) else [np.zeros(0)]
    white = white.with_best_stiffness(candidates[0])
    basins = sorted((white.solve(theta) for theta in candidates), key=objective)[:BASINS]
    basins = distinct([white.minimise(start, bounds, tolerance=0.1) for start in basins], lattice)
    noise, share = noises.learn_noise(ready, white, basins[0])
    model = Model(means, lattice, Whitener.of(noise.covariances(share)), white.stiffness)
    model = model.with_best_stiffness(basins[0].theta)
    basins = distinct([model.minimise(model.solve(b.theta), bounds, tolerance=0.1) for b in basins], lattice)
    best = basins[0]
    for _ in range(2):  # the noise of leads must follow the slope that the fit uses, to its last digits
        noise, share = noises.learn_noise(ready, model, best, noise)
        model = Model(means, lattice, Whitener.of(noise.covariances(share)), model.stiffness)
        model = model.with_best_stiffness(best.theta)
        model, start, noise = noises.with_common_noise(model, best, noise, share)
        best = model.minimise(start, bounds)
    near = [b for b in basins[1:] if b.objective < best.objective + HOPELESS]
    rivals = [model.minimise(model.solve(b.theta), bounds, tolerance=0.1) for b in near]
    return Fitted(model, best, distinct([best, *rivals], lattice)[1:], noise, share, bounds, variance)


def distinct(solutions: list[Solution], lattice: Lattice) -> list[Solution]:
    """Best first, without those that shift the curves as a better one does."""
    kept: list[Solution] = []
    for solution in sorted(solutions, key=objective):
        gaps = [np.abs(solution.moved - other.moved).max(initial=0.0) for other in kept]
        if min(gaps, default=np.inf) > lattice.spacing:
            kept.append(solution)
    return kept


def objective(solution: Solution) -> float:
    """What is minimised."""
    return solution.objective


def search_bounds(ready: Prepared) -> np.ndarray:
    """Exponents that leave neighbouring curves some overlap, and heights that scale within reason, (P, 2)."""
    means = ready.means
    first = np.unique(means.condition, return_index=True)[1]
    bounds = []
    for column in means.binned(means.controls)[first].T:
        gaps = np.diff(np.unique(np.round(column, 9)))
        most = np.ptp(means.x) / np.median(gaps) if len(gaps) else WIDEST
        bounds.append(min(max(most, 4.0), WIDEST))
    bounds += [HIGHEST] * means.heights.shape[1]
    return np.array([[-b, b] for b in bounds]).reshape(-1, 2)


def knot_spacing(ready: Prepared) -> float:
    """One knot for every recorded point of one curve, until they are too many."""
    means = ready.means
    x = means.binned(means.x)
    lengths = [np.ptp(x[means.condition == k]) for k in np.unique(means.condition)]
    points = np.median(np.bincount(means.condition))
    length = float(np.median(lengths)) or 1.0
    return max(length / max(points, 4), 1.5 * length / MAX_KNOTS)


def infer(
    ready: Prepared,
    ways: Directions,
    confidence: float,
    rng: np.random.Generator,
) -> Inference:
    """Search, then intervals, verdict, identifiability and drift at the best exponents."""
    fitted = search(ready)
    model, best = fitted.model, fitted.best
    omega = fitted.omega()
    scatter = noises.Scatter(ready, fitted.noise, fitted.share, omega)
    num = len(best.theta)
    spread, degrees, influence = np.zeros((0, 0)), np.inf, np.zeros((0, len(omega)))
    if num:
        hessian, free = model.information(best)
        inverse = np.linalg.pinv(hessian, hermitian=True)
        influence = (model.whiten.transposed(free) @ inverse).T
        known_by = scatter.mixed(influence)
        degrees = known_by.degrees
        spread = known_by.covariance + np.maximum(inverse - influence @ omega @ influence.T, 0) * np.eye(num)
        wider = _undeceived(hessian, model.slope_noise(best))
        spread = wider @ spread @ wider.T
    t = float(stats.t.ppf(0.5 + confidence / 2, degrees))
    identified = identify(model, best, fitted.rivals, spread, t, fitted.bounds)
    powers = ways.basis @ best.theta
    errors = np.sqrt(np.maximum(np.diag(ways.basis @ spread @ ways.basis.T), 0.0))
    sure = determined(ways, identified)
    known = [i for i, name in enumerate(ways.free) if sure[i] and name in ready.levels]
    outcome = _outcome(fitted, influence, scatter, rng)
    moved = drift(
        model,
        best,
        tuple(ways.free[i] for i in known),
        powers[known],
        [ready.levels[ways.free[i]] for i in known],
        scatter.mixed,
        outcome.refused,
    )
    for i in known:  # where the exponent drifts, its interval takes in how much
        errors[i] = np.hypot(errors[i], moved.spread(ways.free[i]))
    grid, curve, curve_error = _curve(model, best)
    return Inference(
        model=model,
        best=best,
        exponents=[
            Exponent(float(p), float(p - max(t * e, below)), float(p + max(t * e, above)), float(e))
            for p, e, (below, above) in zip(powers, errors, _sides(ways, identified), strict=True)
        ],
        covariance=spread,
        degrees=degrees,
        outcome=outcome,
        identified=identified,
        drift=moved,
        common_noise=fitted.noise.common,
        grid=grid,
        curve=curve,
        curve_error=curve_error,
    )


def _undeceived(information: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """(I − T)⁻¹·I, (P, P): by how much the errors of θ grow when the information T is only the slope's noise."""
    size, turn = np.linalg.eigh(information)
    root = turn * np.sqrt(np.maximum(size, 1e-12 * size.max()))
    half = np.linalg.inv(root)
    share, axes = np.linalg.eigh(half @ noise @ half.T)
    kept = axes / (1 - np.clip(share, 0, MOST_DECEIT)) @ axes.T
    return half.T @ kept @ root.T


def _sides(ways: Directions, identified: Identified) -> np.ndarray:
    """How far each free exponent reaches below and above along any known direction, (P, 2)."""
    moves = (ways.basis @ identified.axes)[:, :, None] * identified.reaches[None]  # (P, directions, ends)
    moves = moves[:, identified.known]
    return np.stack([-moves.min(axis=(1, 2), initial=0.0), moves.max(axis=(1, 2), initial=0.0)], axis=1)


def determined(ways: Directions, identified: Identified) -> np.ndarray:
    """Which free exponents the known directions of θ determine, (P,)."""
    kept = ways.basis @ identified.axes[:, identified.known]
    return ways.known & (np.sum(kept**2, axis=1) > 0.99 * np.sum(ways.basis**2, axis=1))


def _outcome(
    fitted: Fitted, influence: np.ndarray, scatter: noises.Scatter, rng: np.random.Generator
) -> LackOfFit:
    """The verdict on contrasts of the residuals, as linear functions of the means."""
    ready, model, best = scatter.ready, fitted.model, fitted.best
    means = model.means
    at = means.binned(means.log_tau(best.theta))
    probe = contrasts(means.condition, list(ready.levels.values()), at, best.fitted, model.pace(best))
    directed = model.whiten(np.concatenate([probe.distortions, probe.trends]).T)
    rows = np.concatenate([model.whiten.transposed(directed).T, probe.windows])
    left = np.concatenate(
        [
            model.whiten.transposed(model.project_out_curve(best, directed)).T,
            _left_over(model, best, probe.windows),
        ]
    )
    if len(influence):  # the curve refits what the exponents leave: r = (I − S)(I − G ψ) m
        left = left - (left @ model.gradient(best)) @ influence
    spread = scatter.mixed(left)
    whole = np.einsum("gi,ij,gj->g", rows, scatter.model_covariance, rows, optimize=True)
    seen = np.diag(spread.covariance) > UNSEEN * whole
    # What the fit takes out of plain residuals it takes out to first order only: some of it stays.
    stays = np.where(np.arange(len(rows)) >= len(rows) - len(probe.windows), REMAINS**2, UNSEEN)
    sigma = (spread.covariance + np.diag(stays * whole)) * np.outer(seen, seen)
    residual = rows @ (means.mean - best.fitted)
    p_value = lack_of_fit(residual, sigma, spread.degrees, probe.kinds, rng)
    return LackOfFit(p_value, _misfit(fitted, probe.finest, scatter))


def _left_over(model: Model, solution: Solution, rows: np.ndarray) -> np.ndarray:
    """rows·(I − S): what contrasts of the residuals are as functions of the means, the exponents held."""
    basis = model.means.basis(model.lattice, solution.theta, solution.span)
    smoother = np.linalg.solve(normal(model, solution), (rows @ basis).T)
    return rows - model.whiten.transposed(solution.whitened_basis @ smoother).T


def _misfit(fitted: Fitted, windows: np.ndarray, scatter: noises.Scatter) -> float:
    """Root mean square distance of the curves from a common one that runs through their middle, beyond noise.

    The weighted curve may lie off all of them by an offset that they share; that is no distance between them.
    """
    model, best = fitted.model, fitted.best
    blocks = noises.diagonal_blocks(scatter.ready, fitted.variance)
    through = Model(model.means, model.lattice, Whitener.of(blocks), model.stiffness)
    through = through.with_best_stiffness(best.theta)
    middle = through.solve(best.theta)
    noise = scatter.mixed(_left_over(through, middle, windows)).covariance
    excess = np.mean((windows @ (model.means.mean - middle.fitted)) ** 2) - np.mean(np.diag(noise))
    return float(np.sqrt(max(excess, 0.0)))


def normal(model: Model, best: Solution) -> np.ndarray:
    """M = B'Ω⁻¹B + λD'D."""
    return best.whitened_basis.T @ best.whitened_basis + model.stiffness * penalty(best.span[1])


def _curve(model: Model, best: Solution) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The curve with its standard error on a grid of log τ."""
    at = model.means.log_tau(best.theta)
    grid = np.linspace(at.min(), at.max(), 200)
    design = model.lattice.design(grid, best.span)
    variance = np.einsum("ij,jk,ik->i", design, np.linalg.inv(normal(model, best)), design)
    return grid, design @ best.beta, np.sqrt(np.maximum(variance, 0.0))
