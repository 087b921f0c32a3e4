"""Do the curves collapse? A lack-of-fit test on linear contrasts of the residuals, calibrated by simulation.

Three kinds of contrasts say where the curves miss each other.
Windows: the unweighted residuals, averaged over dyadic windows of every curve.
Trends: how these windows follow each control.
Distortions: each control moves the curve's level, its height above one end or the other (an endpoint that
depends on the control), or its pace in log τ.
The last two are score statistics: contrasts d'Ω⁻¹r of the weighted residuals in the few directions d that a
failure of scaling takes, so that they see a drift of a few standard errors; the windows are unweighted, since
slow noise is what weights discount, and see what nobody thought of. Under a true collapse all of them are
normal with covariance R C R', where C mixes the replicates' own scatter with the covariance model as in the
intervals, and share one χ²_ν scale because C is estimated.

Which contrast a failure moves, if any, is known only under the alternative; the test of most average power is
then the mean likelihood ratio (Andrews and Ploberger 1994),

    T = Σ_j w_j exp(κ z_j²/2),

z_j the contrasts over their standard deviations, w_j the share of their kind over the number of its contrasts. It
is read against many draws of the law above. Unlike the largest z it adds up what several contrasts see of one
failure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIGNIFICANCE = 0.01  # its p-values are cautious ones: of 150 true collapses one is refused
LEVELS = (1, 2, 4, 8)  # windows a curve is cut into
TREND_LEVELS = 3  # of them whose windows are followed along the controls
ENDS = 20  # the curve's level at an end is that of this part of the records
DRAWS = 8000
SHARES = (3.0, 1.0, 1.0)  # what is thought of distortions, trends and windows beforehand
SHRINK = 0.7  # κ = τ²/(1 + τ²), of failures that move a contrast by τ = 1.5 standard deviations
UNSEEN = 1e-5  # of a contrast's variance: when the fit takes out all but this, nothing is left to test


@dataclass(frozen=True)
class LackOfFit:
    """p-value of the hypothesis that all curves are one, and the root mean square misfit beyond noise."""

    p_value: float
    misfit: float

    @property
    def refused(self) -> bool:
        """Whether the curves are not one beyond chance."""
        return self.p_value < SIGNIFICANCE


@dataclass(frozen=True)
class Contrasts:
    """Linear functions of the residuals; `windows` of the plain ones, the others of the weighted ones.

    Attributes:
        windows: averages over dyadic windows of every curve, (G, N), the shortest windows last.
        trends: directions control × window, (T, N).
        distortions: directions control × change of the curve, (4 P, N).
    """

    windows: np.ndarray
    trends: np.ndarray
    distortions: np.ndarray

    @property
    def finest(self) -> np.ndarray:
        """The shortest windows."""
        return self.windows[-len(self.windows) // sum(LEVELS) * LEVELS[-1] :]

    @property
    def kinds(self) -> tuple[slice, slice, slice]:
        """Where distortions, trends and windows stand when they are stacked in this order."""
        first, second = len(self.distortions), len(self.distortions) + len(self.trends)
        return slice(0, first), slice(first, second), slice(second, second + len(self.windows))


def contrasts(
    condition: np.ndarray, levels: list[np.ndarray], log_tau: np.ndarray, curve: np.ndarray, slope: np.ndarray
) -> Contrasts:
    """The contrasts of one data set.

    Args:
        condition: of each mean, (N,).
        levels: centred logs of each control at the conditions, (K,) each.
        log_tau: of each mean, (N,).
        curve: F there.
        slope: F′ there.
    """
    varied = [column / np.abs(column).max() for column in levels if np.abs(column).max() > 1e-9]
    windows, trends = [], []
    numbers = np.unique(condition)
    for level in LEVELS:
        for window in range(level):
            picks = np.zeros((len(numbers), len(condition)))
            for row, k in enumerate(numbers):
                part = np.array_split(np.flatnonzero(condition == k), level)[window]
                if len(part):
                    picks[row, part] = 1 / len(part)
            windows.append(picks)
            if level in LEVELS[:TREND_LEVELS]:
                trends += [column @ picks for column in varied]
    order = np.argsort(log_tau, kind="stable")
    end = max(len(order) // ENDS, 1)
    shapes = (
        np.ones_like(curve),
        curve - curve[order[:end]].mean(),
        curve - curve[order[-end:]].mean(),
        (log_tau - log_tau.mean()) * slope,
    )
    distortions = [column[condition] * shape for column in varied for shape in shapes]
    size = (-1, len(condition))
    return Contrasts(np.concatenate(windows), np.reshape(trends, size), np.reshape(distortions, size))


def lack_of_fit(
    values: np.ndarray,
    sigma: np.ndarray,
    degrees: float,
    kinds: tuple[slice, slice, slice],
    rng: np.random.Generator,
) -> float:
    """The p-value of the contrasts' values among draws of their law under a true collapse.

    Args:
        values: of distortions, trends and windows, (G,).
        sigma: covariance (G, G) of the values under a true collapse, 0 for what the fit leaves no trace of.
        degrees: ν of the estimated covariance.
        kinds: where each kind stands.
        rng: source of the draws.
    """
    sd = np.sqrt(np.diag(sigma))
    alive = sd > 0
    unit = np.where(alive, sd, 1.0)
    eigenvalues, vectors = np.linalg.eigh(sigma / np.outer(unit, unit))
    root = vectors * np.sqrt(np.maximum(eigenvalues, 0))
    draws = rng.standard_normal((DRAWS, len(values))) @ root.T
    if np.isfinite(degrees):
        draws *= np.sqrt(degrees / rng.chisquare(degrees, size=(DRAWS, 1)))
    scores = np.concatenate([np.where(alive, values / unit, 0.0)[None], draws])
    sizes = [kind.stop - kind.start for kind in kinds]
    weights = np.repeat(np.divide(SHARES, np.maximum(sizes, 1)), sizes)
    with np.errstate(over="ignore"):  # infinite is as far out as can be
        ratio = np.exp(0.5 * SHRINK * scores**2) @ weights
    return float(np.sum(ratio >= ratio[0]) / (DRAWS + 1))
