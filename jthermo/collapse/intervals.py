"""Assembles the statistics of a fit at its best exponents: intervals, verdict, drift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from jthermo.collapse.averages import Averages
from jthermo.collapse.exponent_drift import Drift, drift
from jthermo.collapse.identifiability import Identified, identify
from jthermo.collapse.lack_of_fit import LackOfFit, contrasts, lack_of_fit
from jthermo.collapse.likelihood import CurveLikelihood, Solution, Whitener
from jthermo.collapse.noise_fit import common_noise_interval, diagonal_blocks
from jthermo.collapse.result_types import Exponent
from jthermo.collapse.scatter import Scatter
from jthermo.collapse.search import Optimum
from jthermo.collapse.settings import Settings
from jthermo.collapse.spline import penalty
from jthermo.collapse.unknowns import Directions


@dataclass(frozen=True)
class Inference:
    """Everything the result needs, with the curve in the units of the averages.

    Attributes:
        likelihood: under the final noise.
        best: its best solution.
        exponents: of the free unknowns.
        covariance: of θ, (P, P).
        degrees: its degrees of freedom.
        outcome: of the lack-of-fit test.
        identified: which directions of θ are determined.
        drift: local exponents.
        common_noise: standard deviation of noise that all replicates share, in a bin.
        common_noise_interval: its limits.
        grid: log τ, (200,).
        curve: F there, (200,).
        curve_error: its standard error, (200,).
    """

    likelihood: CurveLikelihood
    best: Solution
    exponents: list[Exponent]
    covariance: np.ndarray
    degrees: float
    outcome: LackOfFit
    identified: Identified
    drift: Drift
    common_noise: float
    common_noise_interval: tuple[float, float]
    grid: np.ndarray
    curve: np.ndarray
    curve_error: np.ndarray


@dataclass(frozen=True)
class _Errors:
    """Covariance of θ and its degrees of freedom."""

    covariance: np.ndarray
    degrees: float


def infer(
    averages: Averages,
    directions: Directions,
    optimum: Optimum,
    confidence: float,
    rng: np.random.Generator,
) -> Inference:
    """Intervals, verdict, identifiability and drift.

    Args:
        averages: the data.
        directions: of the unknowns.
        optimum: the best exponents.
        confidence: of the intervals.
        rng: of the verdict's random draws.
    """
    settings = averages.settings
    likelihood, best = optimum.likelihood, optimum.best
    scatter = Scatter(averages, optimum.noise, optimum.share, optimum.omega())
    spread = _errors(likelihood, best, scatter)
    t = _t_quantile(spread.degrees, confidence)
    identified = identify(
        likelihood,
        best,
        optimum.rivals,
        spread.covariance,
        t,
        optimum.bounds,
        confidence,
        directions,
    )
    outcome = _outcome(optimum.strict or optimum, averages, identified, confidence, rng)

    exponents = directions.numbers(best.theta)
    variances = np.diag(directions.basis @ spread.covariance @ directions.basis.T)
    errors = np.sqrt(np.maximum(variances, 0.0))
    sure = determined(directions, identified, settings)
    names = directions.free
    known = [i for i, name in enumerate(names) if sure[i] and name in averages.levels]
    local = drift(
        likelihood,
        best,
        tuple(names[i] for i in known),
        exponents[known],
        [averages.levels[names[i]] for i in known],
        scatter.mixed,
        outcome.refused,
    )
    # If an exponent drifts, its interval takes in by how much.
    for i in known:
        errors[i] = np.hypot(errors[i], local.spread(names[i]))
    grid, curve, curve_error = _curve(likelihood, best)
    return Inference(
        likelihood=likelihood,
        best=best,
        exponents=[
            Exponent(float(p), float(p - max(t * e, below)), float(p + max(t * e, above)), float(e))
            for p, e, (below, above) in zip(
                exponents, errors, _sides(directions, identified), strict=True
            )
        ],
        covariance=spread.covariance,
        degrees=spread.degrees,
        outcome=outcome,
        identified=identified,
        drift=local,
        common_noise=optimum.noise.common,
        common_noise_interval=common_noise_interval(
            likelihood, best, optimum.noise, optimum.share, confidence
        ),
        grid=grid,
        curve=curve,
        curve_error=curve_error,
    )


def _errors(likelihood: CurveLikelihood, best: Solution, scatter: Scatter) -> _Errors:
    """How well the means determine θ."""
    num, omega = len(best.theta), scatter.model_covariance
    if not num:
        return _Errors(np.zeros((0, 0)), np.inf)
    hessian, free = likelihood.information(best)
    inverse = np.linalg.pinv(hessian, hermitian=True)
    influence = (likelihood.whiten.transposed(free) @ inverse).T
    spread = scatter.mixed(influence)
    # ψΩψ' omits the bias of the penalised curve; the inverse information includes it.
    bias = _positive(inverse - influence @ omega @ influence.T)
    wider = _without_slope_noise(hessian, likelihood.slope_noise(best), likelihood.settings)
    return _Errors(wider @ (spread.covariance + bias) @ wider.T, spread.degrees)


def _t_quantile(degrees: float, confidence: float) -> float:
    """Half the width of a two-sided interval, in standard errors."""
    return float(special.stdtrit(degrees, 0.5 + confidence / 2))


def influence(likelihood: CurveLikelihood, best: Solution, identified: Identified) -> np.ndarray:
    """How θ follows from the means along the directions that they determine, (P, N).

    Along the others the fit hardly moves, whatever a linear step would say.
    """
    known = identified.followed(best.theta, likelihood.settings)
    hessian, free = likelihood.information(best)
    inverse = np.linalg.pinv(known.T @ hessian @ known, hermitian=True)
    return known @ inverse @ known.T @ likelihood.whiten.transposed(free).T


def _positive(matrix: np.ndarray) -> np.ndarray:
    """The part of a symmetric matrix with positive eigenvalues."""
    size, axes = np.linalg.eigh(matrix)
    return axes * np.maximum(size, 0.0) @ axes.T


def _without_slope_noise(
    information: np.ndarray, noise: np.ndarray, settings: Settings
) -> np.ndarray:
    """(I − T)⁻¹·I, (P, P): the factor on the errors of θ if information T is only slope noise."""
    size, turn = np.linalg.eigh(information)
    root = turn * np.sqrt(np.maximum(size, 1e-12 * size.max()))
    half = np.linalg.inv(root)
    share, axes = np.linalg.eigh(half @ noise @ half.T)
    kept = axes / (1 - np.clip(share, 0, settings.max_slope_noise)) @ axes.T
    return half.T @ kept @ root.T


def _sides(directions: Directions, identified: Identified) -> np.ndarray:
    """How far each free exponent extends below and above along any known direction, (P, 2)."""
    # (P, directions, ends)
    moves = (directions.basis @ identified.axes)[:, :, None] * identified.reaches[None]
    moves = moves[:, identified.known]
    below, above = -moves.min(axis=(1, 2), initial=0.0), moves.max(axis=(1, 2), initial=0.0)
    return np.stack([below, above], axis=1)


def determined(directions: Directions, identified: Identified, settings: Settings) -> np.ndarray:
    """Which free exponents the known directions of θ determine, (P,)."""
    kept = directions.basis @ identified.axes[:, identified.known]
    whole = np.sum(directions.basis**2, axis=1)
    return directions.known & (np.sum(kept**2, axis=1) > settings.determined_share * whole)


def _outcome(
    optimum: Optimum,
    averages: Averages,
    identified: Identified,
    confidence: float,
    rng: np.random.Generator,
) -> LackOfFit:
    """The verdict on contrasts of the residuals, as linear functions of the means."""
    scatter = Scatter(averages, optimum.noise, optimum.share, optimum.omega())
    likelihood, best = optimum.likelihood, optimum.best
    settings, means = averages.settings, likelihood.means
    probe = contrasts(
        means.condition,
        list(averages.levels.values()),
        means.binned(means.log_tau(best.theta)),
        best.fitted,
        likelihood.pace(best),
        settings,
    )
    directed = likelihood.whiten(np.concatenate([probe.distortions, probe.trends]).T)
    rows = np.concatenate([likelihood.whiten.transposed(directed).T, probe.windows])
    free = likelihood.project_out_curve(best, directed)
    left = np.concatenate(
        [likelihood.whiten.transposed(free).T, _left_over(likelihood, best, probe.windows)]
    )
    off, held = means.mean - best.fitted, np.zeros(len(rows))
    # The curve is fitted again to what the exponents leave: r = (I − S)(I − G ψ) m.
    if identified.known.any():
        moved = left @ likelihood.gradient(best)
        follow = influence(likelihood, best, identified)
        left = left - moved @ follow
        # The log determinant holds exponents some way off where ψ puts them.
        held = moved @ (follow @ off)
    spread = scatter.mixed(left)
    whole = np.einsum("gi,ij,gj->g", rows, scatter.model_covariance, rows, optimize=True)
    seen = np.diag(spread.covariance) > settings.min_contrast_share * whole
    # The fit removes part of the plain residuals to first order only, so some of that part stays.
    plain = np.arange(len(rows)) >= len(rows) - len(probe.windows)
    stays = np.where(plain, settings.window_residue**2, settings.min_contrast_share)
    sigma = spread.covariance + np.diag(stays * whole) + np.outer(held, held)
    sigma = sigma * np.outer(seen, seen)
    residual = rows @ off
    p_value = lack_of_fit(residual, sigma, spread.degrees, probe.kinds, rng, settings)
    misfit, ends = _misfit(optimum, probe.finest, scatter, confidence)
    return LackOfFit(p_value, misfit, ends, p_value < settings.verdict_p_value)


def _left_over(likelihood: CurveLikelihood, solution: Solution, rows: np.ndarray) -> np.ndarray:
    """rows·(I − S): contrasts of the residuals as functions of the means, at fixed exponents."""
    basis = likelihood.means.basis(likelihood.lattice, solution.theta, solution.span)
    smoother = np.linalg.solve(_normal(likelihood, solution), (rows @ basis).T)
    return rows - likelihood.whiten.transposed(solution.whitened_basis @ smoother).T


def _misfit(
    optimum: Optimum, windows: np.ndarray, scatter: Scatter, confidence: float
) -> tuple[float, tuple[float, float]]:
    """Root mean square distance of the curves from a common one through their middle, beyond noise.

    The weighted curve may lie off all of them by an offset that they share. That is no distance
    between them, so the middle curve weighs all points by their own variance.

    With G windows, residuals r = d + ε and the covariance Σ of ε, the square of the distance is
    |r|²/G − tr Σ/G. Its variance is (2 tr Σ² + 4 d'Σd)/G², which gives the limits; d'Σd is
    estimated by r'Σr − tr Σ², which is unbiased, and at least 0.
    """
    likelihood, best = optimum.likelihood, optimum.best
    blocks = diagonal_blocks(scatter.averages, optimum.variance)
    through = CurveLikelihood(
        likelihood.means,
        likelihood.lattice,
        Whitener.of(blocks),
        likelihood.stiffness,
        likelihood.settings,
    )
    through, middle = through.with_best_stiffness(best.theta)
    spread = scatter.mixed(_left_over(through, middle, windows))
    noise, residual = spread.covariance, windows @ (likelihood.means.mean - middle.fitted)
    square = float(np.mean(residual**2) - np.mean(np.diag(noise)))
    squares = float(np.sum(noise**2))
    variance = 2 * squares + 4 * max(float(residual @ noise @ residual) - squares, 0.0)
    t = _t_quantile(spread.degrees, confidence)
    half = t * np.sqrt(variance) / len(residual)
    low, mid, high = np.sqrt(np.maximum([square - half, square, square + half], 0.0)).tolist()
    return mid, (low, high)


def _normal(likelihood: CurveLikelihood, best: Solution) -> np.ndarray:
    """M = B'Ω⁻¹B + λD'D, (q, q)."""
    gram = best.whitened_basis.T @ best.whitened_basis
    return gram + likelihood.stiffness * penalty(best.span)


def _curve(
    likelihood: CurveLikelihood, best: Solution
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The curve with its standard error on a grid of log τ."""
    at = likelihood.means.log_tau(best.theta)
    grid = np.linspace(at.min(), at.max(), 200)
    design = likelihood.lattice.design(grid, best.span)
    inverse = np.linalg.inv(_normal(likelihood, best))
    variance = np.einsum("ij,jk,ik->i", design, inverse, design)
    return grid, design @ best.beta, np.sqrt(np.maximum(variance, 0.0))
