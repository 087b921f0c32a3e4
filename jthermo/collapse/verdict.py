"""Do the curves collapse? A lack-of-fit test on unweighted residuals, and by how much they miss.

The residuals r = R·m of the fitted means (R projects out the curve and the exponents) are averaged over
dyadic windows of every curve,
and these averages are also combined into trends along each control: a plateau that drifts with the control,
a curve that changes shape, one condition that stands apart each push some average far out. Weighted
residuals would be blind to slow misfits, since slow noise is what the weights discount. Under a true
collapse the averages u are normal with covariance U R C R' U', where C mixes the replicates' own scatter
with the covariance model as in the intervals, and share one χ²_ν scale because C is estimated. Three
statistics (largest average, largest trend, mean square) are read against many draws of that law, and the
smallest of their tail probabilities against its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVELS = (1, 2, 4, 8)  # windows a curve is cut into
DRAWS = 8000


@dataclass(frozen=True)
class LackOfFit:
    """p-value of the hypothesis that all curves are one, and the root mean square misfit beyond noise."""

    p_value: float
    misfit: float


def contrasts(condition: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that average residuals over windows of each curve, and rows of their trends along controls."""
    own, trends = [], []
    numbers = np.unique(condition)
    for level in LEVELS:
        for window in range(level):
            picks = np.zeros((len(numbers), len(condition)))
            for row, k in enumerate(numbers):
                members = np.flatnonzero(condition == k)
                part = np.array_split(members, level)[window]
                if len(part):
                    picks[row, part] = 1 / len(part)
            own.append(picks)
            if level <= 4:
                for column in levels.T:
                    size = np.abs(column).max()
                    if size > 1e-9:
                        trends.append((column / size) @ picks)
    return np.concatenate(own), np.array(trends).reshape(-1, len(condition))


def finest(own: np.ndarray) -> np.ndarray:
    """The rows of :func:`contrasts` with the shortest windows."""
    return own[-len(own) // sum(LEVELS) * LEVELS[-1] :]


def lack_of_fit(
    residual: np.ndarray,
    own: np.ndarray,
    trends: np.ndarray,
    sigma: np.ndarray,
    degrees: float,
    rng: np.random.Generator,
) -> float:
    """The p-value of the contrasts of the residuals among draws of their law under a true collapse.

    Args:
        residual: (N,) means minus the fitted curve.
        own: contrast rows, see :func:`contrasts`.
        trends: the others.
        sigma: covariance (G, G) of the contrasts' values under a true collapse.
        degrees: ν of the estimated covariance.
        rng: source of the draws.
    """
    rows = np.concatenate([own, trends])
    sd = np.sqrt(np.diag(sigma))
    alive = sd > 1e-3 * sd.max()
    values, vectors = np.linalg.eigh(sigma / np.outer(sd, sd))
    root = vectors * np.sqrt(np.maximum(values, 0))
    draws = rng.standard_normal((DRAWS, len(rows))) @ root.T
    if np.isfinite(degrees):
        draws *= np.sqrt(degrees / rng.chisquare(degrees, size=(DRAWS, 1)))
    everything = np.concatenate([(rows @ residual / sd)[None], draws])[:, alive]
    first = int(alive[: len(own)].sum())
    statistics = np.stack(
        [
            np.abs(everything[:, :first]).max(axis=1, initial=0.0),
            np.abs(everything[:, first:]).max(axis=1, initial=0.0),
            np.mean(everything[:, :first] ** 2, axis=1),
        ]
    )
    ranks = np.argsort(np.argsort(-statistics, axis=1, kind="stable"), axis=1, kind="stable")
    smallest = ranks.min(axis=0)
    p_value = (1 + np.sum(smallest[1:] <= smallest[0])) / (DRAWS + 1)
    return float(p_value)
