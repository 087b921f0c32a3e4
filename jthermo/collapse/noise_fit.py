"""The noise of one data set: its covariance learnt from the replicates, and how well that is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from jthermo.collapse import noise_covariance as cov
from jthermo.collapse.averages import Prepared
from jthermo.collapse.likelihood import Lattice, Model, Solution, Whitener

FLOOR = 1e-5  # standard error of a mean, in units of the curves' range, below which nothing is believed
MODEL_DEGREES = 20.0  # the covariance model counts as at most this many replicates: it is only a model
SINGLE_DEGREES = (4.0, 60.0)  # least and most that a single replicate's residuals tell of its noise
COMMON_PARTS = (0.03, 0.1, 0.3, 1.0)  # of the means' variance, that may be common to all replicates
PLAIN_GAIN = 3.0  # log likelihood: a true model without it gains as much once in a hundred fits
FEWEST_SCATTERED = 4  # records at which replicates differ, from which on the others are not asked
COARSER = 2.5  # lattice of the curve whose residuals tell the noise of single replicates


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
    at = means.log_tau(best.theta)
    slope = model.pace(best)
    progress = (best.fitted - best.fitted.min()) / max(float(np.ptp(best.fitted)), 1e-300)
    log_tau = means.binned(at)
    ages = cov.ages_of(log_tau)
    if several:
        sd, point_sd = cov.profiles(reps, condition, log_tau, means.log_time, FLOOR**2)
        groups = (
            [np.arange(len(condition))]
            if reps.paired
            else [np.flatnonzero(condition == k) for k in np.unique(condition)]
        )
    else:
        coarse = Lattice(COARSER * model.lattice.spacing)
        basis = means.basis(coarse, best.theta, coarse.span(at))
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
            progress[rows],
            ages=ages,
            paired=several and reps.paired,
        )
        full.append(kernel)
        told = np.arange(len(rows))
        if several:  # where all replicates are equal, as counts of none are, they tell no size of the noise
            scattered = np.flatnonzero(deviations[:, rows].any(axis=0))
            told = scattered if len(scattered) >= FEWEST_SCATTERED else told
        pick = told[:: int(np.ceil(len(told) / cov.MAX_ROWS))]
        few = rows[pick]
        if several:
            here = reps.present[:, few].any(axis=1)
            part = deviations[np.ix_(here, few)]
            degrees = max(float(np.median(reps.counts[few])) - 1, 1.0)
            together = reps.present[np.ix_(here, few)].astype(float)
            pairs = np.maximum(together.T @ together, 1.0)
            root = np.sqrt(np.outer(reps.counts[few], reps.counts[few]))
            samples.append(part.T @ part / root * np.where(pairs < root - 1e-9, root / pairs, 1.0))
            thinned.append(kernel[:, pick[:, None], pick])
        else:
            left = _complement(np.column_stack([basis, model.gradient(best)])[few])
            part = left.T @ means.mean[few]
            samples.append(np.outer(part, part))
            thinned.append(np.array([left.T @ k[np.ix_(pick, pick)] @ left for k in kernel]))
            degrees = 1.0
        numbers.append(degrees)
    weights, information = cov.estimate_weights(
        thinned, samples, numbers, names, None if before is None else before.weights
    )
    noise = cov.Noise(names, weights, tuple(groups), tuple(full), information, FLOOR)
    share = [ready.share[np.ix_(rows, rows)] for rows in groups]
    return noise, share


def with_common_noise(
    model: Model, best: Solution, noise: cov.Noise, share: list[np.ndarray]
) -> tuple[Model, Solution, cov.Noise]:
    """The noise with what replicates share and no curve explains, where that is plain; with its model and solution.

    A staircase of the clock, a lattice's parity or rounding are the same in every replicate of a condition, so their
    scatter says nothing of it, and a curve that must pass through takes every step for a feature, whose slope then
    tells of the exponent what is not so. As point noise of the means it grows by factors for as long as the
    evidence does, and is there only when that gains `PLAIN_GAIN`.
    """
    typical = float(np.mean(np.concatenate([np.diag(omega) for omega in noise.covariances(share)])))
    without = model.solve(best.theta)
    found, least = (model, without, noise), model.evidence(without) - PLAIN_GAIN
    for part in COMMON_PARTS:
        trial = replace(noise, common=float(np.sqrt(part * typical)))
        with_it = replace(model, whiten=Whitener.of(trial.covariances(share))).with_best_stiffness(best.theta)
        solution = with_it.solve(best.theta)
        evidence = with_it.evidence(solution)
        if evidence >= least:
            break
        found, least = (with_it, solution, trial), evidence
    return found


def _complement(basis: np.ndarray) -> np.ndarray:
    """Orthonormal directions that the curve and the exponents cannot reach, (N, N − rank)."""
    left, singular, _ = np.linalg.svd(basis, full_matrices=True)
    return left[:, int(np.sum(singular > 1e-7 * singular[0])) :]


@dataclass(frozen=True)
class Spread:
    """Covariance (G, G) of linear functions of the means, and how well it is known.

    Attributes:
        covariance: the replicates' own mixed with the model's, s·model + (1 − s)·own.
        degrees: of freedom it is known with: with s = ν_model/(ν_model + ν_own) the two, which err apart, have
            ν_model + ν_own.
    """

    covariance: np.ndarray
    degrees: float


@dataclass(frozen=True)
class Scatter:
    """Covariance of linear functions of the means: the replicates' own mixed with the model's."""

    ready: Prepared
    noise: cov.Noise
    share: list[np.ndarray]
    model_covariance: np.ndarray

    def mixed(self, rows: np.ndarray) -> Spread:
        """Of rows·mean, rows (G, N)."""
        by_model = rows @ self.model_covariance @ rows.T
        reps = self.ready.replicates
        weights = float(np.median(self.noise.degrees(rows, self.share)))
        if reps.counts.min() <= 1:
            degrees = float(np.clip(weights, *SINGLE_DEGREES))
            return Spread(by_model, degrees)
        scores = (rows / reps.counts) @ reps.unbiased.T  # (G, labels): what each replicate contributes
        own, model = self._own_degrees(rows), min(weights, MODEL_DEGREES)
        s = model / (model + own)
        return Spread(s * by_model + (1 - s) * scores @ scores.T, model + own)

    def _own_degrees(self, rows: np.ndarray) -> float:
        """Satterthwaite over conditions; paired replicates are one group."""
        reps, condition = self.ready.replicates, self.ready.means.condition
        if reps.paired:
            return float(np.max(reps.counts) - 1)
        power, counts = [], []
        unbiased, shared = reps.unbiased, rows / reps.counts
        for k in np.unique(condition):
            here = condition == k
            power.append(np.sum((unbiased[:, here] @ shared[:, here].T) ** 2, axis=0))
            counts.append(np.max(reps.counts[here]) - 1)
        parts = np.array(power)
        out = parts.sum(axis=0) ** 2 / np.maximum(np.sum(parts.T**2 / np.array(counts), axis=1), 1e-300)
        return float(np.median(out))
