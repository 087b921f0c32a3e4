"""The score by which forms are compared: how well each predicts replicates that were left out.

    S = −½ Σ_l (y_l − m_(−l))' Ω⁻¹ (y_l − m_(−l)),

with y_l a replicate, m_(−l) its prediction from all others, and Ω the covariance of a replicate
around smooth curves that obey no law, so it is the same for all forms. Without replicates S is the
score that a second measurement with the same noise would get on average (Mallows' C_p),
−½ [(y − m)'Ω⁻¹(y − m) + 2 tr H]. There Ω are the published errors, or follows from residuals.

The difference of two scores is S_a − S_b ≈ (m_a − m_b)'Ω⁻¹y + constant. It is linear in the data,
so its standard error is that of a linear function of the means (Vuong 1989). A form loses about one
unit of S for each number that the data do not need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jthermo.collapse import linalg
from jthermo.collapse.noise_covariance import NoiseCovariance
from jthermo.collapse.noise_fit import noise_around
from jthermo.collapse.prediction import Prediction, Records
from jthermo.collapse.scatter import Scatter


class Judge:
    """Scores predictions by one noise.

    Args:
        records: what is predicted.
        noise: covariance of one replicate.
        share: n_ij/(n_i n_j) of each of its blocks.
    """

    def __init__(self, records: Records, noise: NoiseCovariance, share: list[np.ndarray]) -> None:
        self.records, self.averages = records, records.averages
        self.noise, self.share = noise, share
        self.changes = records.changes()
        self.omega = self._whole(noise.covariances(share))
        self.scatter = Scatter(self.averages, noise, share, self.omega)
        reps = self.averages.replicates
        self.replicated = self.averages.errors is None and bool(reps.counts.min() > 1)
        if not self.replicated:
            self.groups, self.inverses = [], []
            return
        # Replicates that were recorded in the same bins share an inverse.
        patterns: dict[bytes, list[int]] = {}
        for row, present in enumerate(reps.present):
            patterns.setdefault(present.tobytes(), []).append(row)
        single = self._whole(noise.covariances([np.ones_like(part) for part in share]))
        self.groups = [
            (np.array(rows), np.flatnonzero(reps.present[rows[0]])) for rows in patterns.values()
        ]
        self.inverses = [linalg.inverse(single[np.ix_(bins, bins)]) for _, bins in self.groups]

    def with_common(self, share_of_range: float, prediction: Prediction) -> Judge:
        """The same if all replicates share noise, as a share of the range of a prediction.

        The replicates do not show it, so it widens the errors only.
        """
        size = share_of_range * self.averages.means.noise_unit(prediction.mean)
        noise = replace(self.noise, common=size)
        judge = Judge(self.records, self.noise, self.share)
        omega = self._whole(noise.covariances(self.share))
        judge.scatter = Scatter(self.averages, noise, self.share, omega)
        return judge

    def _whole(self, parts: list[np.ndarray]) -> np.ndarray:
        out = np.zeros((len(self.averages.means.mean),) * 2)
        for rows, block in zip(self.noise.blocks, parts, strict=True):
            out[np.ix_(rows, rows)] = block
        return out

    def score(self, prediction: Prediction) -> float:
        """S of a prediction."""
        mean = self.averages.means.mean
        if not self.replicated:
            residual = mean - prediction.mean
            square = residual @ np.linalg.solve(self.omega, residual)
            return float(-0.5 * square - prediction.num_fitted)
        values = mean + self.averages.replicates.deviations
        error = values - prediction.without(self.changes)
        square = sum(
            np.einsum("li,ij,lj->", part, inverse, part, optimize=True)
            for part, inverse in (
                (error[np.ix_(rows, bins)], inverse)
                for (rows, bins), inverse in zip(self.groups, self.inverses, strict=True)
            )
        )
        return float(-0.5 * square - prediction.chosen)

    def error(self, a: Prediction, b: Prediction) -> tuple[float, float]:
        """Standard error of the difference of two scores, with its degrees of freedom."""
        gap = a.mean - b.mean
        if not np.abs(gap).max(initial=0.0):
            return 0.0, np.inf
        if self.replicated:
            row = np.zeros(len(gap))
            for (rows, bins), inverse in zip(self.groups, self.inverses, strict=True):
                row[bins] += len(rows) * (inverse @ gap[bins])
        else:
            row = np.linalg.solve(self.omega, gap)
        spread = self.scatter.mixed(row[None])
        return float(np.sqrt(max(spread.covariance[0, 0], 0.0))), spread.degrees


def noise_for_all(
    records: Records, predictions: Sequence[Prediction]
) -> tuple[NoiseCovariance, list[np.ndarray]]:
    """The noise that judges all forms.

    Without replicates and published errors it is that of the residuals of the form that predicts
    single records best, by generalised cross-validation.
    """
    mean = records.averages.means.mean

    def loss(prediction: Prediction) -> float:
        left = max(len(mean) - prediction.num_fitted, 1.0)
        return float(np.sum((mean - prediction.mean) ** 2)) / left**2

    best = min(predictions, key=loss)
    left, singular, _ = np.linalg.svd(best.hat)
    return noise_around(records.averages, records.course, left[:, singular > 0.5])
