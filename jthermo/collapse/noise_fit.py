"""Estimates the noise covariance from the replicates, or from residuals without them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import special
from scipy.optimize import brentq, minimize_scalar

from jthermo.collapse.averages import Averages
from jthermo.collapse.likelihood import CurveLikelihood, Solution, Whitener
from jthermo.collapse.noise_covariance import (
    Bins,
    NoiseCovariance,
    Sample,
    ages_of,
    estimate_weights,
    kernels,
    local_noise,
    misfit_kernels,
    profiles,
)
from jthermo.collapse.spline import Lattice
from jthermo.errors import InputError


def rough_variance(averages: Averages) -> np.ndarray:
    """Variance of each mean if its points were independent, (N,)."""
    settings, reps, means = averages.settings, averages.replicates, averages.means
    if averages.errors is not None:
        return averages.errors**2
    if reps.counts.max() > 1:
        sd, _ = profiles(reps, means.condition, means.log_time, means.log_time, 0.0, settings)
        variance = sd**2 / reps.counts
    else:
        variance = np.empty(len(reps.counts))
        curves = [means.condition == k for k in np.unique(means.condition)]
        local = [local_noise(means.mean[None, rows]) for rows in curves]
        # A curve of one or two records has no local differences.
        usual = np.median([np.median(noise) for noise in local if len(noise)])
        for rows, noise in zip(curves, local, strict=True):
            typical = np.median(noise) if len(noise) else usual
            variance[rows] = typical * settings.single_noise_factor
    return variance + settings.min_error**2


def diagonal_blocks(averages: Averages, variance: np.ndarray) -> list[np.ndarray]:
    """Covariance of independent points, one block per condition."""
    condition = averages.means.condition
    return [np.diag(variance[condition == k]) for k in np.unique(condition)]


def learn_noise(
    averages: Averages,
    likelihood: CurveLikelihood,
    best: Solution,
    before: NoiseCovariance | None = None,
) -> tuple[NoiseCovariance, list[np.ndarray]]:
    """The covariance of one replicate, and n_ij/(n_i n_j) of each of its blocks.

    Args:
        averages: the data.
        likelihood: with an earlier covariance.
        best: its best solution, which gives the slope and the progress of the curve.
        before: an earlier estimate to start from.
    """
    if averages.errors is not None:
        noise, share = _with_misfit(averages, likelihood, best, before)
        return with_timing(noise, averages, likelihood.pace(best)), share
    if averages.replicates.counts.min() > 1:
        learning: _Learning = _FromReplicates.of(averages, Course.of(likelihood, best))
    else:
        learning = _FromResiduals.of(averages, likelihood, best)
    return _estimated(averages, learning, before)


def noise_around(
    averages: Averages, course: Course, reached: np.ndarray
) -> tuple[NoiseCovariance, list[np.ndarray]]:
    """The covariance of one replicate around given curves, whatever law these obey.

    Args:
        averages: the data.
        course: of the curves.
        reached: directions of the means that the curves can follow, (N, r). They matter without
            replicates only.
    """
    if averages.errors is not None:
        noise, share = published(averages)
        return with_timing(noise, averages, course.slope), share
    if averages.replicates.counts.min() > 1:
        return _estimated(averages, _FromReplicates.of(averages, course), None)
    residuals = _FromResiduals.around(averages, course, reached, averages.means.mean)
    return _estimated(averages, residuals, None)


def _estimated(
    averages: Averages, learning: _Learning, before: NoiseCovariance | None
) -> tuple[NoiseCovariance, list[np.ndarray]]:
    """The covariance that samples of the noise show, and n_ij/(n_i n_j) of each of its blocks."""
    ages = ages_of(learning.bins.log_tau, averages.settings)
    samples, components = [], []
    names: tuple[str, ...] = ()
    for rows in learning.groups:
        names, kernel = kernels(
            learning.bins.at(rows),
            ages=ages,
            paired=learning.paired,
            settings=averages.settings,
        )
        components.append(kernel)
        samples.append(learning.sample(rows, kernel))
    weights, information = estimate_weights(
        samples, names, averages.settings, None if before is None else before.weights
    )
    noise = NoiseCovariance(
        names,
        weights,
        tuple(learning.groups),
        tuple(components),
        information,
        averages.settings,
    )
    noise = with_timing(noise, averages, learning.bins.slope)
    return noise, [averages.share[np.ix_(rows, rows)] for rows in learning.groups]


def with_timing(noise: NoiseCovariance, averages: Averages, slope: np.ndarray) -> NoiseCovariance:
    """The same with what a time that is known within a step Δ only changes in the values.

    Where a discrete clock counts from, or which end of a step it records, moves all records of a
    curve by up to ± Δ/2 together. Within its step each record has a time of its own as well, which
    scatters by Δ/√12. Both move the value by F′·δ log t, equally in all replicates.

    Args:
        noise: of the replicates.
        averages: the data.
        slope: F′(log τ), (N,).
    """
    if averages.log_step is None:
        return noise
    step, condition = slope * averages.log_step, averages.means.condition
    blocks = []
    for rows in noise.blocks:
        same = condition[rows][:, None] == condition[rows]
        blocks.append(np.outer(step[rows], step[rows]) / 4 * same + np.diag(step[rows] ** 2) / 12)
    return replace(noise, timing=tuple(blocks))


def published(averages: Averages) -> tuple[NoiseCovariance, list[np.ndarray]]:
    """Published standard errors as they are: nothing about them is estimated."""
    errors = averages.errors
    if errors is None:
        raise ValueError("there are no published errors")
    rows, component = np.arange(len(errors)), np.diag(errors**2)[None]
    noise = NoiseCovariance(
        ("published",),
        np.ones(1),
        (rows,),
        (component,),
        np.zeros((1, 1)),
        averages.settings,
        held=1,
    )
    return noise, [np.ones((len(rows), len(rows)))]


def _with_misfit(
    averages: Averages, likelihood: CurveLikelihood, best: Solution, before: NoiseCovariance | None
) -> tuple[NoiseCovariance, list[np.ndarray]]:
    """Published standard errors, and what the curves miss each other by beyond them.

    Corrections to scaling, or errors that are too small, leave residuals that are smooth along each
    curve. Their covariance is estimated like that of single replicates, so that the intervals take
    them in. The verdict does not: it compares the curves by the published errors.
    """
    means, settings = averages.means, averages.settings
    only, share = published(averages)
    residuals = _FromResiduals.of(averages, likelihood, best)
    names, kernel = misfit_kernels(residuals.bins, only.components[0][0], settings)
    sample = residuals.sample(np.arange(len(means.mean)), kernel)
    start = None if before is None or len(before.weights) != len(names) else before.weights
    weights, information = estimate_weights([sample], names, settings, start, held=1)
    noise = replace(
        only, names=names, weights=weights, components=(kernel,), information=information
    )
    return noise, share


@dataclass(frozen=True)
class Course:
    """What the curves do at the bins.

    Attributes:
        log_tau: where they are, (N,).
        fitted: their values, (N,).
        slope: their slope in log τ, (N,).
    """

    log_tau: np.ndarray
    fitted: np.ndarray
    slope: np.ndarray

    @classmethod
    def of(cls, likelihood: CurveLikelihood, best: Solution) -> Course:
        """Of a common curve."""
        means = likelihood.means
        log_tau = means.binned(means.log_tau(best.theta))
        return cls(log_tau, best.fitted, likelihood.pace(best))


@dataclass(frozen=True)
class _FromReplicates:
    """Samples of the noise from the replicates' deviations from their mean."""

    averages: Averages
    bins: Bins
    groups: list[np.ndarray]
    deviations: np.ndarray

    @classmethod
    def of(cls, averages: Averages, course: Course) -> _FromReplicates:
        means, reps, settings = averages.means, averages.replicates, averages.settings
        floor = settings.min_error**2
        sds = profiles(reps, means.condition, course.log_tau, means.log_time, floor, settings)
        condition = means.condition
        everything = [np.arange(len(condition))]
        apart = [np.flatnonzero(condition == k) for k in np.unique(condition)]
        bins = _bins(averages, course, *sds)
        return cls(averages, bins, everything if reps.paired else apart, reps.unbiased)

    @property
    def paired(self) -> bool:
        """Whether replicates are shared between conditions."""
        return self.averages.replicates.paired

    def sample(self, rows: np.ndarray, kernel: np.ndarray) -> Sample:
        """The sample covariance of one block, from at most `max_weight_bins` of its bins."""
        reps = self.averages.replicates
        pick = _thinned(self._scattered(rows), self.averages.settings.max_weight_bins)
        few = rows[pick]
        here = reps.present[:, few].any(axis=1)
        part = self.deviations[np.ix_(here, few)]
        degrees = max(float(np.median(reps.counts[few])) - 1, 1.0)
        together = reps.present[np.ix_(here, few)].astype(float)
        pairs = np.maximum(together.T @ together, 1.0)
        root = np.sqrt(np.outer(reps.counts[few], reps.counts[few]))
        covariance = part.T @ part / root * np.where(pairs < root - 1e-9, root / pairs, 1.0)
        return Sample(kernel[:, pick[:, None], pick], covariance, degrees)

    def _scattered(self, rows: np.ndarray) -> np.ndarray:
        """Bins of a block at which replicates differ.

        If they are all equal, as counts of none are, they say nothing about the size of the noise.
        """
        scattered = np.flatnonzero(self.deviations[:, rows].any(axis=0))
        enough = len(scattered) >= self.averages.settings.min_scattered_bins
        return scattered if enough else np.arange(len(rows))


@dataclass(frozen=True)
class _FromResiduals:
    """One sample of the noise from the residuals of a smooth curve, as in REML."""

    averages: Averages
    bins: Bins
    groups: list[np.ndarray]
    reached: np.ndarray
    target: np.ndarray
    paired: bool = False

    @classmethod
    def of(cls, averages: Averages, likelihood: CurveLikelihood, best: Solution) -> _FromResiduals:
        means, fine = averages.means, likelihood.lattice
        coarse = Lattice(averages.settings.residual_coarseness * fine.spacing, fine.broken)
        span = coarse.span(means.log_tau(best.theta))
        basis = means.basis(coarse, best.theta, span)
        reached = np.column_stack([basis, likelihood.gradient(best)])
        course = Course.of(likelihood, best)
        return cls.around(averages, course, reached, means.target(best.theta))

    @classmethod
    def around(
        cls, averages: Averages, course: Course, reached: np.ndarray, target: np.ndarray
    ) -> _FromResiduals:
        """The same around other curves, which can follow some directions of the means, (N, r)."""
        means, settings = averages.means, averages.settings
        residual = _complement(reached).T @ target
        if not len(residual):
            remedy = (
                "the curve alone takes as many numbers, so nothing tells the noise; record more "
                "often, or give replicates"
            )
            raise InputError("data", f"{len(means.mean)} records in all", remedy)
        level = np.sqrt(np.mean(residual**2) + settings.min_error**2)
        sd = np.full(len(means.mean), level)
        bins = _bins(averages, course, sd, sd)
        return cls(averages, bins, [np.arange(len(means.mean))], reached, target)

    def sample(self, rows: np.ndarray, kernel: np.ndarray) -> Sample:
        """The part of the means that neither the curve nor the exponents reach."""
        pick = _thinned(np.arange(len(rows)), self.averages.settings.max_weight_bins)
        few = rows[pick]
        left = _complement(self.reached[few])
        part = left.T @ self.target[few]
        chosen = kernel[:, pick[:, None], pick]
        turned = np.array([left.T @ k @ left for k in chosen])
        # What the curve and the exponents follow leaves no residual but rounding.
        rest, whole = (np.trace(part, axis1=1, axis2=2) for part in (turned, chosen))
        turned[rest < self.averages.settings.min_residual_share * whole] = 0.0
        return Sample(turned, np.outer(part, part), 1.0)


_Learning = _FromReplicates | _FromResiduals


def _bins(averages: Averages, course: Course, sd: np.ndarray, point_sd: np.ndarray) -> Bins:
    """The bins of the means with the noise and the curve there."""
    means, fitted = averages.means, course.fitted
    return Bins(
        log_time=means.log_time,
        log_tau=course.log_tau,
        condition=means.condition,
        sd=sd,
        point_sd=point_sd,
        slope=course.slope,
        progress=(fitted - fitted.min()) / max(float(np.ptp(fitted)), 1e-300),
    )


def _thinned(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of them, equally spaced."""
    return rows[:: int(np.ceil(len(rows) / most))]


def _complement(basis: np.ndarray) -> np.ndarray:
    """Orthonormal directions outside the span of the columns, (N, N − rank)."""
    left, singular, _ = np.linalg.svd(basis, full_matrices=True)
    return left[:, int(np.sum(singular > 1e-7 * singular[0])) :]


def with_common_noise(
    likelihood: CurveLikelihood, best: Solution, noise: NoiseCovariance, share: list[np.ndarray]
) -> tuple[CurveLikelihood, Solution, NoiseCovariance]:
    """Add noise that all replicates share and no smooth curve explains, if the evidence is clear.

    A staircase of the clock, a lattice's parity or rounding are the same in every replicate of a
    condition, so the replicates' scatter does not show them. A curve that must pass through takes
    every step for a feature, and the slope of such features narrows the interval wrongly. The noise
    is added as point noise of the means. Its size grows while the evidence does, and it is kept
    only if it gains `common_noise_gain` log likelihood. Then the most likely size is found. Curves
    that differ smoothly from a common one would be such noise too if it could be of any size. So it
    is at most the replicates' own, or what the differences of neighbouring records show.
    """
    settings = likelihood.settings
    own = noise.of_replicates(share)
    variances = [np.diag(omega) for omega in noise.around(own)]
    typical = float(np.mean(np.concatenate(variances)))
    growth, means = settings.common_noise_growth, likelihood.means
    local = [
        local_noise(means.mean[None, means.condition == k]) for k in np.unique(means.condition)
    ]
    shown = settings.common_noise_local * float(np.mean(np.concatenate(local) / typical))
    most = max(shown, settings.common_noise_shares[-1])
    beyond = settings.common_noise_shares[-1] * growth ** np.arange(1, 40)
    chosen, least = 0.0, likelihood.evidence(best)
    enough = least - settings.common_noise_gain
    for part in (*settings.common_noise_shares, *beyond[beyond < most]):
        evidence = _under_common_noise(likelihood, best, noise, own, part * typical)[0]
        if evidence >= least:
            break
        chosen, least = part * typical, evidence
    if least >= enough:
        return likelihood, best, noise
    finest = minimize_scalar(
        lambda log: _under_common_noise(likelihood, best, noise, own, np.exp(log))[0],
        bounds=(np.log(chosen / growth), np.log(min(chosen * growth, most * typical))),
        method="bounded",
        options={"xatol": settings.common_noise_tolerance},
    )
    return _under_common_noise(likelihood, best, noise, own, float(np.exp(finest.x)))[1:]


def _under_common_noise(
    likelihood: CurveLikelihood,
    best: Solution,
    noise: NoiseCovariance,
    own: list[np.ndarray],
    variance: float,
) -> tuple[float, CurveLikelihood, Solution, NoiseCovariance]:
    """Evidence, likelihood, solution and covariance with common noise of this variance.

    `own` is what :meth:`NoiseCovariance.of_replicates` gives.
    """
    trial = replace(noise, common=float(np.sqrt(variance)))
    noisier = replace(likelihood, whiten=Whitener.of(trial.around(own)))
    noisier, solution = noisier.with_best_stiffness(best.theta)
    return noisier.evidence(solution), noisier, solution, trial


def common_noise_interval(
    likelihood: CurveLikelihood,
    best: Solution,
    noise: NoiseCovariance,
    share: list[np.ndarray],
    confidence: float,
) -> tuple[float, float]:
    """Standard deviations of common noise at which the evidence has fallen by z²/2; 0 if none."""
    if not noise.common:
        return 0.0, 0.0
    own, middle = noise.of_replicates(share), 2 * float(np.log(noise.common))
    least = _under_common_noise(likelihood, best, noise, own, np.exp(middle))[0]
    allowed = float(special.ndtri(0.5 + confidence / 2)) ** 2 / 2

    def beyond(log: float) -> float:
        return _under_common_noise(likelihood, best, noise, own, np.exp(log))[0] - least - allowed

    ends = []
    for sign in (-1.0, 1.0):
        steps = middle + sign * 0.5 * np.arange(1, 40)
        outer = next((step for step in steps if beyond(step) > 0), None)
        if outer is None:
            ends.append(0.0 if sign < 0 else np.inf)
            continue
        low, high = sorted((float(middle), float(outer)))
        end = brentq(beyond, low, high, xtol=likelihood.settings.common_noise_tolerance)
        ends.append(float(np.exp(end / 2)))
    return ends[0], ends[1]
