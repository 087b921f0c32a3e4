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
MOST_EXTRA = 0.3  # share of a variance that the estimated weights may add
BASINS = 4  # minima that are followed to their bottom
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
    basins = sorted((white.solve(theta) for theta in candidates), key=objective)[:BASINS]
    basins = distinct([white.minimise(start, bounds, tolerance=0.1) for start in basins], lattice, means)
    noise, share = learn_noise(ready, white, basins[0])
    model = Model(means, lattice, Whitener.of(noise.covariances(share)), white.stiffness)
    model = model.with_best_stiffness(basins[0].theta)
    rivals = distinct([model.minimise(model.solve(b.theta), bounds) for b in basins], lattice, means)
    best = rivals[0]
    for _ in range(2):  # the noise of leads must follow the slope that the fit uses, to its last digits
        noise, share = learn_noise(ready, model, best, noise)
        model = Model(means, lattice, Whitener.of(noise.covariances(share)), model.stiffness)
        model = model.with_best_stiffness(best.theta)
        best = model.minimise(model.solve(best.theta), bounds)
    return conclude(ready, curves, ways, confidence, rng, model, best, noise, share, bounds)


def distinct(solutions: list[Solution], lattice: Lattice, means) -> list[Solution]:
    """Best first, without those that shift the curves as a better one does."""
    kept: list[Solution] = []
    for solution in sorted(solutions, key=objective):
        gaps = [np.abs(means.controls @ (solution.theta - other.theta)).max(initial=0.0) for other in kept]
        if min(gaps, default=np.inf) > lattice.spacing:
            kept.append(solution)
    return kept


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
        sd, _ = cov.profiles(reps, ready.means.condition, ready.means.log_time, ready.means.log_time, 0.0)
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


def learn_noise(
    ready: Prepared, model: Model, best: Solution, before: cov.Noise | None = None
) -> tuple[cov.Noise, list[np.ndarray]]:
    """The covariance of a replicate, from the replicates where there are several, else from the residuals."""
    means, reps = ready.means, ready.replicates
    condition = means.condition
    several = reps.counts.min() > 1
    slope = means.binned(model.lattice.design(means.log_tau(best.theta), best.span, slope=True)) @ best.beta
    log_tau = means.binned(means.log_tau(best.theta))
    if several:
        sd, point_sd = cov.profiles(reps, condition, log_tau, means.log_time, FLOOR**2)
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
            slope[rows],
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
    weights, information = cov.estimate_weights(thinned, samples, numbers, None if before is None else before.weights)
    noise = cov.Noise(names, weights, tuple(groups), tuple(full), information, FLOOR**2)
    share = [ready.share[np.ix_(rows, rows)] for rows in groups]
    return noise, share


def _complement(basis: np.ndarray) -> np.ndarray:
    """Orthonormal directions that the curve and the exponents cannot reach, (N, N − rank)."""
    left, singular, _ = np.linalg.svd(basis, full_matrices=True)
    return left[:, int(np.sum(singular > 1e-7 * singular[0])) :]


def weighting_error(
    model: Model, best: Solution, influence: np.ndarray, noise: cov.Noise, share: list[np.ndarray]
) -> np.ndarray:
    """Λ = Σ_mn cov(a_m, a_n)·u_m P u_n', u_m = ψK_m: what the weights a, being estimated, add to ψ's variance.

    ψ(a) moves by −Σ δa_m ψK_mP with the weights, P = Ω⁻¹ − Ω⁻¹X(X'Ω⁻¹X)⁻¹X'Ω⁻¹ the precision of residuals;
    ψΩψ' is too small by the same amount, hence twice Λ (Kackar and Harville 1984, Kenward and Roger 1997).
    """
    active = noise.active()
    turned = np.array([noise.turned(influence, share, m) for m in active])  # (m, P, N)
    white = model.whiten(turned.reshape(-1, turned.shape[-1]).T)
    white = model.project_out_curve(best, white)
    gradient = model.project_out_curve(best, model.whiten(model.gradient(best)))
    frame = np.linalg.qr(gradient)[0]
    white = white - frame @ (frame.T @ white)
    white = white.T.reshape(len(active), len(influence), -1)
    return np.einsum("mn,mpi,nqi->pq", noise.uncertainty(active), white, white)


def inflated(covariance: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """`covariance` + `extra`, by at most MOST_EXTRA of each variance: the expansion behind it is of first order."""
    size = np.sqrt(np.diag(covariance))
    ratio = extra / np.maximum(np.outer(size, size), 1e-300)
    top = np.linalg.eigvalsh(ratio).max()
    return covariance + extra * min(1.0, MOST_EXTRA / max(top, 1e-300))


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
            return by_model, float(np.clip(np.median(self.noise.degrees(rows, self.share)), 4.0, 60.0))
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
        mixed = inflated(mixed, 2 * weighting_error(model, best, influence, noise, share))
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
