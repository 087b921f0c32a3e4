"""The verdict: a lack-of-fit test on linear contrasts of the residuals.

Three kinds of contrasts say where the curves differ:

* windows: the unweighted residuals, averaged over dyadic windows of every curve;
* trends: how these windows follow each control;
* distortions: each control changes the curve's level, its height above one end or the other (an
  endpoint that depends on the control), or its pace in log τ.

The last two are score statistics: contrasts d'Ω⁻¹r of the weighted residuals r in the few
directions d that a failure of scaling takes, so they detect a drift of a few standard errors. The
windows are unweighted because weights discount slow noise, and they detect failures of any other
form. Under a true collapse all of them are normal with covariance R C R', where C mixes the
replicates' own scatter with the noise model as the intervals do. They share one χ²_ν scale because
C is estimated.

Which contrast a failure moves is not known in advance. The test with the largest average power is
then the mean likelihood ratio (Andrews and Ploberger 1994),

    T = Σ_j w_j exp(κ z_j²/2),

with z_j the contrasts over their standard deviations and w_j the prior weight of their kind over
the number of its contrasts. It is compared with many draws from the law above. Unlike the largest
z, it adds up what several contrasts see of one failure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jthermo.collapse.settings import Settings


@dataclass(frozen=True)
class LackOfFit:
    """The outcome of the test.

    Attributes:
        p_value: of the hypothesis that all curves are one.
        misfit: root mean square distance of the curves beyond their noise.
        misfit_interval: its limits.
        refused: whether the p-value is below `verdict_p_value`.
    """

    p_value: float
    misfit: float
    misfit_interval: tuple[float, float]
    refused: bool


@dataclass(frozen=True)
class Contrasts:
    """Linear functions of the residuals, of the plain ones (`windows`) or of the weighted ones.

    Attributes:
        windows: averages over dyadic windows of every curve, (G, N), the shortest windows last.
        trends: directions control × window, (T, N).
        distortions: directions control × change of the curve, (4 P, N).
        num_finest: how many of the windows are the shortest.
    """

    windows: np.ndarray
    trends: np.ndarray
    distortions: np.ndarray
    num_finest: int

    @property
    def finest(self) -> np.ndarray:
        """The shortest windows."""
        return self.windows[-self.num_finest :]

    @property
    def kinds(self) -> tuple[slice, slice, slice]:
        """Positions of distortions, trends and windows if they are stacked in this order."""
        first, second = len(self.distortions), len(self.distortions) + len(self.trends)
        return slice(0, first), slice(first, second), slice(second, second + len(self.windows))


def contrasts(
    condition: np.ndarray,
    levels: list[np.ndarray],
    log_tau: np.ndarray,
    curve: np.ndarray,
    slope: np.ndarray,
    settings: Settings,
) -> Contrasts:
    """The contrasts of one data set.

    Args:
        condition: of each mean, (N,).
        levels: centred logs of each control at the conditions, (K,) each.
        log_tau: of each mean, (N,).
        curve: F there, (N,).
        slope: F′ there, (N,).
        settings: the constants of the fit.
    """
    varied = [column / np.abs(column).max() for column in levels if np.abs(column).max() > 1e-9]
    windows, trends = [], []
    numbers = np.unique(condition)
    for depth, count in enumerate(settings.window_counts):
        for window in range(count):
            picks = np.zeros((len(numbers), len(condition)))
            for row, k in enumerate(numbers):
                part = np.array_split(np.flatnonzero(condition == k), count)[window]
                if len(part):
                    picks[row, part] = 1 / len(part)
            windows.append(picks)
            if depth < settings.trend_levels:
                trends += [column @ picks for column in varied]
    order = np.argsort(log_tau, kind="stable")
    end = max(len(order) // settings.end_parts, 1)
    shapes = (
        np.ones_like(curve),
        curve - curve[order[:end]].mean(),
        curve - curve[order[-end:]].mean(),
        (log_tau - log_tau.mean()) * slope,
    )
    distortions = [column[condition] * shape for column in varied for shape in shapes]
    size = (-1, len(condition))
    finest = len(numbers) * settings.window_counts[-1]
    return Contrasts(
        np.concatenate(windows), np.reshape(trends, size), np.reshape(distortions, size), finest
    )


def lack_of_fit(
    values: np.ndarray,
    sigma: np.ndarray,
    degrees: float,
    kinds: tuple[slice, slice, slice],
    rng: np.random.Generator,
    settings: Settings,
) -> float:
    """The p-value of the contrasts among draws from their law under a true collapse.

    Args:
        values: of distortions, trends and windows, (G,).
        sigma: their covariance under a true collapse, (G, G); 0 if a contrast cannot be tested.
        degrees: ν of the estimated covariance.
        kinds: positions of each kind.
        rng: source of the draws.
        settings: the constants of the fit.
    """
    sd = np.sqrt(np.diag(sigma))
    alive = sd > 0
    unit = np.where(alive, sd, 1.0)
    eigenvalues, vectors = np.linalg.eigh(sigma / np.outer(unit, unit))
    root = vectors * np.sqrt(np.maximum(eigenvalues, 0))
    number = settings.null_draws
    draws = rng.standard_normal((number, len(values))) @ root.T
    if np.isfinite(degrees):
        draws *= np.sqrt(degrees / rng.chisquare(degrees, size=(number, 1)))
    scores = np.concatenate([np.where(alive, values / unit, 0.0)[None], draws])
    sizes = [kind.stop - kind.start for kind in kinds]
    prior = (settings.distortion_weight, 1.0, 1.0)
    weights = np.repeat(np.divide(prior, np.maximum(sizes, 1)), sizes)
    # An infinite ratio is as far out as a value can be.
    with np.errstate(over="ignore"):
        ratio = np.exp(0.5 * settings.failure_shrinkage * scores**2) @ weights
    return float(np.sum(ratio >= ratio[0]) / (number + 1))
