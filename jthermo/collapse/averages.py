"""Averages of each curve over its replicates and over bins of log t."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from jthermo.collapse.read import Curves
from jthermo.collapse.settings import Settings
from jthermo.collapse.spline import Lattice
from jthermo.collapse.unknowns import Directions, Unknown


@dataclass(frozen=True)
class Means:
    """The averaged curves, all conditions one after the other, and the bins of their points.

    Attributes:
        x: log t of every point plus the shifts that are held fixed, (n,).
        log_time: log t of each bin, (N,).
        controls: the centred log controls of every point in the fitted directions, (n, P).
        starts: first point of each bin, (N,).
        mean: average over replicates and bin, (N,).
        condition: index of the condition of each bin, (N,).
        heights: centred log controls of each bin that scale the value, in the fitted directions,
            (N, R).
        log_height: log of the part of the value's scale that is held fixed, (N,).
    """

    x: np.ndarray
    log_time: np.ndarray
    controls: np.ndarray
    starts: np.ndarray
    mean: np.ndarray
    condition: np.ndarray
    heights: np.ndarray
    log_height: np.ndarray

    def binned(self, rows: np.ndarray) -> np.ndarray:
        """Average rows given at the points over the bins."""
        if len(self.starts) == len(self.x):
            return rows
        counts = np.diff(np.r_[self.starts, len(self.x)])
        total = np.add.reduceat(rows, self.starts, axis=0)
        return total / counts.reshape(-1, *[1] * (rows.ndim - 1))

    def noise_unit(self, fitted: np.ndarray) -> float:
        """Standard deviation of a bin if that of every record is the range of the fitted curve."""
        counts = np.diff(np.r_[self.starts, len(self.x)])
        return float(np.ptp(fitted) * np.sqrt(np.mean(1 / counts))) or 1.0

    def log_tau(self, theta: np.ndarray) -> np.ndarray:
        """Log τ of every point, (n,). θ holds the shifts first, then the heights."""
        return self.x + self.controls @ theta[: self.controls.shape[1]]

    def holding(self, position: int, value: float) -> Means:
        """The same with one component of θ held; the later components move up."""
        shifts = self.controls.shape[1]
        if position < shifts:
            x = self.x + value * self.controls[:, position]
            return replace(self, x=x, controls=np.delete(self.controls, position, axis=1))
        column = position - shifts
        log_height = self.log_height + value * self.heights[:, column]
        return replace(self, log_height=log_height, heights=np.delete(self.heights, column, axis=1))

    def height(self, theta: np.ndarray) -> np.ndarray:
        """Scale of the value of every bin, (N,)."""
        return np.exp(self.log_height + self.heights @ theta[self.controls.shape[1] :])

    def basis(
        self, lattice: Lattice, theta: np.ndarray, span: tuple[int, int], *, slope: bool = False
    ) -> np.ndarray:
        """The splines (or their derivatives in log τ) behind each mean, (N, q)."""
        rows = self.binned(lattice.design(self.log_tau(theta), span, slope=slope))
        return rows * self.height(theta)[:, None]


@dataclass(frozen=True)
class Replicates:
    """Deviations of every replicate from its condition's mean, in the bins of the means.

    Attributes:
        deviations: (L, N), one row per label; 0 where the label has no run.
        present: whether it has one, (L, N).
        counts: number of replicates behind each mean, (N,).
        paired: whether the same label appears at several conditions.
    """

    deviations: np.ndarray
    present: np.ndarray
    counts: np.ndarray
    paired: bool

    @property
    def unbiased(self) -> np.ndarray:
        """Deviations times √(n/(n − 1)): their mean square is the variance of a replicate."""
        return self.deviations * np.sqrt(self.counts / np.maximum(self.counts - 1, 1))


@dataclass(frozen=True)
class Averages:
    """Everything the fit computes with. Values are divided by `scale` after subtracting `centre`.

    Attributes:
        means: the averaged curves.
        replicates: the deviations from them.
        share: n_ij/(n_i n_j), which turns the covariance of a replicate into that of the means,
            (N, N).
        levels: control → its centred logs at the conditions, (K,); fixed controls too.
        scale: unit of the values.
        centre: their origin.
        settings: the constants of the fit.
    """

    means: Means
    replicates: Replicates
    share: np.ndarray
    levels: dict[str, np.ndarray]
    scale: float
    centre: float
    settings: Settings


def average(
    curves: Curves,
    unknowns: tuple[Unknown, ...],
    directions: Directions,
    fixed: dict[str, float],
    settings: Settings,
) -> Averages:
    """Average over replicates and bins."""
    number = len(curves.conditions)
    per_curve = max(settings.min_bins, settings.total_bins // number)
    per_curve = min(per_curve, settings.max_bins // number)
    held = np.zeros((2, number))
    for unknown in unknowns:
        held[int(unknown.height)] += fixed.get(unknown.name, 0.0) * unknown.column
    xs, starts, means, conditions, rows, log_times = [], [], [], [], [], []
    total = 0
    for k, condition in enumerate(curves.conditions):
        start = _bins(condition.log_time, per_curve)
        binned = _bin_rows(condition.values, start)
        counts = np.isfinite(binned).sum(axis=0)
        means.append(np.nansum(binned, axis=0) / np.maximum(counts, 1))
        rows.append(binned)
        xs.append(condition.log_time)
        size = np.diff(np.r_[start, len(condition.log_time)])
        log_times.append(np.add.reduceat(condition.log_time, start) / size)
        starts.append(start + total)
        conditions.append(np.full(len(start), k))
        total += len(condition.log_time)
    per_point = np.concatenate([np.full(len(x), k) for k, x in enumerate(xs)])
    mean = np.concatenate(means)
    scale = float(np.ptp(mean)) or float(np.abs(mean).max()) or 1.0
    # A factor on the value moves everything except 0, so 0 must stay where it is.
    scaled = any(unknown.height for unknown in unknowns)
    centre = 0.0 if scaled else float(np.median(mean))
    condition_of = np.concatenate(conditions)
    averaged = Means(
        x=np.concatenate(xs) + held[0][per_point],
        log_time=np.concatenate(log_times),
        controls=directions.shifts[per_point],
        starts=np.concatenate(starts),
        mean=(mean - centre) / scale,
        condition=condition_of,
        heights=directions.heights[condition_of],
        log_height=held[1][condition_of],
    )
    replicates, share = _replicates(curves, rows, means, condition_of, scale)
    levels = {unknown.name: unknown.column for unknown in unknowns[: len(curves.controls)]}
    return Averages(averaged, replicates, share, levels, scale, centre, settings)


def _bins(x: np.ndarray, most: int) -> np.ndarray:
    """First point of each bin: equal steps of log t, so that equally spaced points share alike."""
    if len(x) <= most:
        return np.arange(len(x))
    step = np.median(np.diff(x))
    width = np.ceil(np.ptp(x) / most / step - 1e-9) * step * (1 - 1e-6)
    starts = [0]
    for i in range(1, len(x)):
        if x[i] - x[starts[-1]] >= width:
            starts.append(i)
    return np.array(starts)


def _bin_rows(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Averages over the bins, NaN where a bin holds no finite value."""
    finite = np.isfinite(values)
    total = np.add.reduceat(np.where(finite, values, 0.0), starts, axis=1)
    number = np.add.reduceat(finite.astype(int), starts, axis=1)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def _replicates(
    curves: Curves,
    rows: list[np.ndarray],
    means: list[np.ndarray],
    condition: np.ndarray,
    scale: float,
) -> tuple[Replicates, np.ndarray]:
    """Deviations by label over all conditions, and n_ij/(n_i n_j) of the means."""
    paired = curves.paired
    if paired:
        labels = np.unique(np.concatenate([c.labels for c in curves.conditions]))
        place = [np.searchsorted(labels, c.labels) for c in curves.conditions]
        number = len(labels)
    else:
        edges = np.cumsum([0, *(len(c.labels) for c in curves.conditions)])
        place = [np.arange(a, b) for a, b in pairwise(edges)]
        number = int(edges[-1])
    deviations = np.zeros((number, len(condition)))
    present = np.zeros((number, len(condition)), bool)
    for k, (binned, mean) in enumerate(zip(rows, means, strict=True)):
        where = np.ix_(place[k], np.flatnonzero(condition == k))
        finite = np.isfinite(binned)
        deviations[where] = np.where(finite, (binned - mean) / scale, 0.0)
        present[where] = finite
    counts = present.sum(axis=0)
    together = present.T.astype(float) @ present
    share = together / np.outer(counts, counts)
    return Replicates(deviations, present, counts, paired), share
