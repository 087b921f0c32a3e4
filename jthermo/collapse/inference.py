"""From the prepared numbers to exponents, intervals and verdict: the story of one fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from . import covariance as cov
from .curve import MAX_KNOTS, Lattice, Model, Solution, Whitener
from .input import Curves
from .prepare import Directions, Prepared
from .result import Exponent, Note
from .scan import starts
from .verdict import contrasts, lack_of_fit

FLOOR = 1e-5  # standard error of a mean, in units of the curves' range, below which nothing is believed
MODEL_DEGREES = 20.0  # the covariance model counts as at most this many replicates: it is only a model
WIDEST = 12.0  # largest exponent looked for


@dataclass(frozen=True)
class Inference:
    """Everything the result needs, in the units of the prepared data."""

    theta: np.ndarray
    exponents: list[Exponent]
    covariance: np.ndarray
    degrees: float
    p_value: float
    misfit: float
    informative: bool
    notes: list[Note]
    grid: np.ndarray
    curve: np.ndarray
    curve_error: np.ndarray


def infer(
    ready: Prepared, curves: Curves, ways: Directions, confidence: float, rng: np.random.Generator
) -> Inference:
    """Scan, fit with point noise, learn the covariance, fit again with it, then intervals and verdict."""
    means = ready.means
    bounds = search_bounds(ready)
    variance = rough_variance(ready)
    lattice = Lattice(knot_spacing(ready))
    white = Model(means, lattice, Whitener.of(diagonal_blocks(ready, variance)), 1.0)
    candidates = starts(means, variance, bounds) if ways.basis.shape[1] else [np.zeros(0)]
    white = white.with_best_stiffness(candidates[0])
    basins = sorted((white.solve(theta) for theta in candidates), key=objective)[:3]
    best = min((white.minimise(start, bounds, tolerance=0.1) for start in basins), key=objective)

    noise, share = learn_noise(ready, white, best)
    model = Model(means, lattice, Whitener.of(noise.covariances(share)), white.stiffness)
    for _ in range(2):
        model = model.with_best_stiffness(best.theta)
        best = model.minimise(model.solve(best.theta), bounds)
    return conclude(ready, curves, ways, confidence, rng, model, best, noise, share, bounds)


def objective(solution: Solution) -> float:
    """What is minimised."""
    return solution.objective


def search_bounds(ready: Prepared) -> np.ndarray:
    """Exponents that leave neighbouring curves some overlap, (P, 2)."""
    means = ready.means
    first = np.unique(means.condition, return_index=True)[1]
    levels = means.binned(means.controls)[first]
    bounds = []
    for column in levels.T:
        gaps = np.diff(np.unique(np.round(column, 9)))
        most = np.ptp(means.x) / np.median(gaps) if len(gaps) else WIDEST
        bounds.append(min(max(most, 4.0), WIDEST))
    return np.array([[-b, b] for b in bounds]).reshape(-1, 2)


def knot_spacing(ready: Prepared) -> float:
    """One knot for every recorded point of one curve, until they are too many."""
    means = ready.means
    x = means.binned(means.x)
    lengths = [np.ptp(x[means.condition == k]) for k in np.unique(means.condition)]
    points = np.median(np.bincount(means.condition))
    length = float(np.median(lengths)) or 1.0
    return max(length / max(points, 4), 1.5 * length / MAX_KNOTS)


def rough_variance(ready: Prepared) -> np.ndarray:
    """Variance of each mean, as if its points were independent."""
    reps = ready.replicates
    if reps.counts.max() > 1:
        sd, _ = cov.profiles(reps, ready.means.condition, 0.0)
        variance = sd**2 / reps.counts
    else:
        variance = np.empty(len(reps.counts))
        for k in np.unique(ready.means.condition):
            rows = ready.means.condition == k
            variance[rows] = np.median(cov._local_noise(ready.means.mean[None, rows])) * 2
    return variance + FLOOR**2


def diagonal_blocks(ready: Prepared, variance: np.ndarray) -> list[np.ndarray]:
    """Independent points, in blocks by condition."""
    condition = ready.means.condition
    return [np.diag(variance[condition == k]) for k in np.unique(condition)]


def learn_noise(ready: Prepared, model: Model, best: Solution) -> tuple[cov.Noise, list[np.ndarray]]:
    """The covariance of a replicate, from the replicates where there are several, else from the residuals."""
    means, reps = ready.means, ready.replicates
    condition = means.condition
    several = reps.counts.min() > 1
    log_tau = means.binned(means.log_tau(best.theta))
    if several:
        sd, point_sd = cov.profiles(reps, condition, FLOOR**2)
        groups = (
            [np.arange(len(condition))]
            if reps.paired
            else [np.flatnonzero(condition == k) for k in np.unique(condition)]
        )
    else:
        basis = means.binned(model.lattice.design(means.log_tau(best.theta), best.span))
        unreached = _complement(np.column_stack([basis, model.gradient(best)]))
        level = np.sqrt(np.mean((unreached.T @ means.mean) ** 2) + FLOOR**2)
        sd = point_sd = np.full(len(condition), level)
        groups = [np.arange(len(condition))]
    deviations = reps.unbiased
    thinned, samples, numbers, full = [], [], [], []
    names: tuple[str, ...] = ()
    for rows in groups:
        names, kernel = cov.kernels(
            means.log_time[rows],
            log_tau[rows],
            condition[rows],
            sd[rows],
            point_sd[rows],
            paired=several and reps.paired,
        )
        full.append(kernel)
        step = int(np.ceil(len(rows) / cov.MAX_ROWS))
        pick = slice(None, None, step)
        few = rows[pick]
        if several:
            here = reps.present[:, few].any(axis=1)
            part = deviations[np.ix_(here, few)]
            degrees = max(float(np.median(reps.counts[few])) - 1, 1.0)
            together = reps.present[np.ix_(here, few)].astype(float)
            pairs = np.maximum(together.T @ together, 1.0)
            root = np.sqrt(np.outer(reps.counts[few], reps.counts[few]))
            samples.append(part.T @ part / root * np.where(pairs < root - 1e-9, root / pairs, 1.0))
            thinned.append(kernel[:, pick, pick])
        else:
            left = _complement(np.column_stack([basis, model.gradient(best)])[few])
            part = left.T @ means.mean[few]
            samples.append(np.outer(part, part))
            thinned.append(np.array([left.T @ k[pick, pick] @ left for k in kernel]))
            degrees = 1.0
        numbers.append(degrees)
    weights, information = cov.estimate_weights(thinned, samples, numbers)
    noise = cov.Noise(names, weights, tuple(groups), tuple(full), information, FLOOR**2)
    share = [ready.share[np.ix_(rows, rows)] for rows in groups]
    return noise, share


def _complement(basis: np.ndarray) -> np.ndarray:
    """Orthonormal directions that the curve and the exponents cannot reach, (N, N − rank)."""
    left, singular, _ = np.linalg.svd(basis, full_matrices=True)
    return left[:, int(np.sum(singular > 1e-7 * singular[0])) :]


@dataclass(frozen=True)
class Scatter:
    """Covariance of linear functions of the means: the replicates' own mixed with the model's."""

    ready: Prepared
    noise: cov.Noise
    share: list[np.ndarray]
    model_covariance: np.ndarray

    def mixed(self, rows: np.ndarray) -> tuple[np.ndarray, float]:
        """Covariance (G, G) of rows·mean, and the degrees of freedom it is known with."""
        by_model = rows @ self.model_covariance @ rows.T
        reps = self.ready.replicates
        if reps.counts.min() <= 1:
            return by_model, float(np.clip(np.median(self.noise.degrees(rows, self.share)), 1.0, 60.0))
        scores = (rows / reps.counts) @ reps.unbiased.T  # (G, labels): what each replicate contributes
        own = scores @ scores.T
        degrees_own = self._own_degrees(rows)
        degrees_model = min(float(np.median(self.noise.degrees(rows, self.share))), MODEL_DEGREES)
        share = degrees_model / (degrees_model + degrees_own)
        return share * by_model + (1 - share) * own, max(degrees_model, degrees_own)

    def _own_degrees(self, rows: np.ndarray) -> float:
        """Satterthwaite over conditions; paired replicates are one group."""
        reps, condition = self.ready.replicates, self.ready.means.condition
        if reps.paired:
            return float(np.max(reps.counts) - 1)
        out = []
        for row in rows:
            parts, counts = [], []
            for k in np.unique(condition):
                here = condition == k
                scores = reps.unbiased[:, here] @ (row[here] / reps.counts[here])
                parts.append(np.sum(scores**2))
                counts.append(np.max(reps.counts[here]) - 1)
            power = np.array(parts)
            out.append(power.sum() ** 2 / max(np.sum(power**2 / np.array(counts)), 1e-300))
        return float(np.median(out))


def conclude(ready, curves, ways, confidence, rng, model, best, noise, share, bounds) -> Inference:
    """Intervals, verdict and notes at the best exponents."""
    means = ready.means
    blocks = noise.covariances(share)
    omega = np.zeros((len(means.mean),) * 2)
    for rows, block in zip(noise.blocks, blocks, strict=True):
        omega[np.ix_(rows, rows)] = block
    scatter = Scatter(ready, noise, share, omega)
    num = len(best.theta)
    notes: list[Note] = []
    hessian, free = model.information(best)
    inverse = np.linalg.pinv(hessian, hermitian=True) if num else hessian
    influence = (model.whiten.transposed(free) @ inverse).T  # (P, N)
    if num:
        mixed, degrees = scatter.mixed(influence)
        spread = mixed + np.maximum(inverse - influence @ omega @ influence.T, 0) * np.eye(num)
    else:
        spread, degrees = np.zeros((0, 0)), np.inf
    residual = means.mean - best.fitted

    basis = model.means.binned(model.lattice.design(means.log_tau(best.theta), best.span))
    gradient = model.gradient(best)

    def through_fit(rows: np.ndarray) -> np.ndarray:
        """rows·R: what the contrasts of the residuals are as functions of the means."""
        smoother = np.linalg.solve(
            best.whitened_basis.T @ best.whitened_basis + model.stiffness * _penalty(best), (rows @ basis).T
        ).T
        back = model.whiten.transposed(best.whitened_basis @ smoother.T).T
        # the curve refits what the exponents leave: r = (I − S)(I − G ψ) m
        return (rows - back) - ((rows - back) @ gradient) @ influence if num else rows - back

    own, trends = contrasts(means.condition, ready.levels)
    fit_rows = through_fit(np.concatenate([own, trends]))
    sigma, verdict_degrees = scatter.mixed(fit_rows)
    sigma = sigma + FLOOR**2 * np.eye(len(sigma))
    outcome = lack_of_fit(residual, own, trends, lambda rows: sigma, verdict_degrees, rng)

    t = stats.t.ppf(0.5 + confidence / 2, degrees) if num else 0.0
    powers = ways.basis @ best.theta
    errors = np.sqrt(np.maximum(np.diag(ways.basis @ spread @ ways.basis.T), 0.0))
    exponents = [
        Exponent(float(p), float(p - t * e), float(p + t * e), float(e))
        for p, e in zip(powers, errors, strict=True)
    ]
    informative = bool(num == 0 or (np.isfinite(errors).all() and np.all(t * errors < WIDEST / 2)))
    log_tau = means.log_tau(best.theta)
    grid = np.linspace(log_tau.min(), log_tau.max(), 200)
    design = model.lattice.design(grid, best.span)
    band = np.linalg.inv(best.whitened_basis.T @ best.whitened_basis + model.stiffness * _penalty(best))
    error = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", design, band, design), 0))
    return Inference(
        theta=best.theta,
        exponents=exponents,
        covariance=spread,
        degrees=degrees,
        p_value=outcome.p_value,
        misfit=outcome.misfit,
        informative=informative,
        notes=notes,
        grid=grid,
        curve=design @ best.beta,
        curve_error=error,
    )


def _penalty(best: Solution) -> np.ndarray:
    from .curve import penalty

    return penalty(best.span[1])
