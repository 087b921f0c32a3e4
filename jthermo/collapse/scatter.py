"""Variances of linear combinations of the averages, and their degrees of freedom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jthermo.collapse.averages import Averages
from jthermo.collapse.noise_covariance import NoiseCovariance


@dataclass(frozen=True)
class Spread:
    """Covariance of linear functions of the means, (G, G), with its degrees of freedom.

    With s = ν_model/(ν_model + ν_own) the covariance is s·model + (1 − s)·own. The two have
    independent errors, so together they have ν_model + ν_own degrees of freedom.
    """

    covariance: np.ndarray
    degrees: float


@dataclass(frozen=True)
class Scatter:
    """The replicates' own covariance of the means, mixed with that of the noise model.

    Attributes:
        averages: the data.
        noise: covariance of one replicate.
        share: n_ij/(n_i n_j) of each block.
        model_covariance: of the means by the noise model, (N, N).
    """

    averages: Averages
    noise: NoiseCovariance
    share: list[np.ndarray]
    model_covariance: np.ndarray

    def mixed(self, rows: np.ndarray) -> Spread:
        """The spread of rows·mean, for rows (G, N)."""
        settings = self.averages.settings
        by_model = rows @ self.model_covariance @ rows.T
        reps = self.averages.replicates
        weights = float(np.median(self.noise.degrees(rows, self.share)))
        if self.averages.errors is not None:
            least, most = settings.single_degrees[0], settings.published_degrees
            return Spread(by_model, float(np.clip(weights, least, most)))
        if reps.counts.min() <= 1:
            degrees = float(np.clip(weights, *settings.single_degrees))
            return Spread(by_model, degrees)
        # What each replicate contributes, (G, labels).
        scores = (rows / reps.counts) @ reps.unbiased.T
        own, model = self._own_degrees(rows), min(weights, settings.model_degrees)
        s = model / (model + own)
        # The replicates don't show what they all share.
        shared = self.noise.shared_by_all(rows)
        return Spread(s * by_model + (1 - s) * (scores @ scores.T + shared), model + own)

    def _own_degrees(self, rows: np.ndarray) -> float:
        """Satterthwaite's degrees of freedom over conditions; paired replicates are one group."""
        reps, condition = self.averages.replicates, self.averages.means.condition
        if reps.paired:
            return float(np.max(reps.counts) - 1)
        variance, degrees = [], []
        unbiased, shared = reps.unbiased, rows / reps.counts
        for k in np.unique(condition):
            here = condition == k
            variance.append(np.sum((unbiased[:, here] @ shared[:, here].T) ** 2, axis=0))
            degrees.append(np.max(reps.counts[here]) - 1)
        parts = np.array(variance)
        squares = np.sum(parts.T**2 / np.array(degrees), axis=1)
        return float(np.median(parts.sum(axis=0) ** 2 / np.maximum(squares, 1e-300)))
