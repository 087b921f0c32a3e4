"""Averages of each curve over its replicates and over bins of log t."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from jthermo.collapse.means import Means
from jthermo.collapse.read import Curves
from jthermo.collapse.settings import Settings
from jthermo.collapse.unknowns import KINDS, Directions, Unknown


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
        limits: range of the components of θ that are fitted in a given one, (P₁, 2), the last.
        scaled: whether a factor on the value is fitted or held, with 0 or the offset at `centre`.
        broken: whether the curve has a branch on either side of τ = 0.
        errors: published standard errors of the means, (N,); None without.
        bend: distance from a fitted offset of logs below which these are linear; 0 without.
        log_step: change of log (t − t_c) within the resolution of time, at most 1, (N,); None if
            times are exact.
    """

    means: Means
    replicates: Replicates
    share: np.ndarray
    levels: dict[str, np.ndarray]
    scale: float
    centre: float
    settings: Settings
    limits: np.ndarray
    scaled: bool = False
    broken: bool = False
    errors: np.ndarray | None = None
    bend: float = 0.0
    log_step: np.ndarray | None = None

    def of_log(self, ordinate: np.ndarray) -> np.ndarray:
        """Distance from the offset at an ordinate of the curve, if values are logs."""
        log = self.centre + self.scale * ordinate
        return 2 * self.bend * np.sinh(log - np.log(self.bend)) if self.bend else np.exp(log)

    def per_log(self, ordinate: np.ndarray) -> np.ndarray:
        """The derivative of :meth:`of_log`."""
        return self.scale * np.hypot(self.of_log(ordinate), 2 * self.bend)


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
    held = {kind: np.zeros(number) for kind in KINDS}
    for unknown in unknowns:
        if unknown.name in fixed:
            held[unknown.kind] = held[unknown.kind] + fixed[unknown.name] * unknown.column
    known_errors = all(c.errors is not None for c in curves.conditions)
    errors: list[np.ndarray] = []
    xs, starts, means, conditions, rows, log_times = [], [], [], [], [], []
    total = 0
    for k, condition in enumerate(curves.conditions):
        start = _bins(condition.log_time, per_curve)
        binned = _bin_rows(curves.compared(condition.values), start)
        counts = np.isfinite(binned).sum(axis=0)
        means.append(np.nansum(binned, axis=0) / np.maximum(counts, 1))
        rows.append(binned)
        xs.append(condition.log_time)
        size = np.diff(np.r_[start, len(condition.log_time)])
        if known_errors and condition.errors is not None:
            variances = _variances(curves, condition.values, condition.errors)
            errors.append(np.sqrt(_bin_rows(variances, start)[0] / size))
        log_times.append(np.add.reduceat(condition.log_time, start) / size)
        starts.append(start + total)
        conditions.append(np.full(len(start), k))
        total += len(condition.log_time)
    per_point = np.concatenate([np.full(len(x), k) for k, x in enumerate(xs)])
    mean = np.concatenate(means)
    scale = float(np.ptp(mean)) or float(np.abs(mean).max()) or 1.0
    free = {unknown.kind: unknown for unknown in unknowns if unknown.name not in fixed}
    offset = free.get("offset")
    # A factor on the value moves everything except 0, so 0 must stay where it is.
    logs = curves.log_above is not None
    scaled = not logs and any(unknown.kind == "height" for unknown in unknowns)
    centre = 0.0 if scaled else float(np.median(mean))
    bend = settings.log_bend * float(np.exp(mean.min())) if logs and offset is not None else 0.0
    if scaled and (offset is not None or "offset" in fixed):
        centre = fixed["offset"] if offset is None else offset.origin
    condition_of = np.concatenate(conditions)
    place, lead = np.concatenate(xs), None
    if curves.clock.signed:
        lead = np.exp(held["shift"][per_point])
        place = np.arcsinh(np.sinh(place) * lead)
    else:
        place = place + held["shift"][per_point]
    averaged = Means(
        x=place,
        log_time=np.concatenate(log_times),
        controls=directions.shifts[per_point],
        starts=np.concatenate(starts),
        mean=(mean - centre) / scale,
        condition=condition_of,
        heights=directions.heights[condition_of],
        log_height=held["height"][condition_of],
        lead=lead,
        critical="critical_point" in free,
        offset_unit=None if offset is None else 1.0 if logs else offset.unit / scale,
        log_unit=scale if logs else None,
        level=np.exp(mean) / offset.unit if logs and offset is not None else None,
        bend=bend / offset.unit if offset is not None else 0.0,
    )
    replicates, share = _replicates(curves, rows, means, condition_of, scale)
    levels = {unknown.name: unknown.column for unknown in unknowns[: len(curves.controls)]}
    return Averages(
        averaged,
        replicates,
        share,
        levels,
        scale,
        centre,
        settings,
        limits=directions.limits,
        scaled=scaled,
        broken=curves.clock.broken,
        errors=np.hypot(np.concatenate(errors) / scale, settings.min_error) if errors else None,
        bend=bend,
        log_step=_log_step(curves, averaged.log_time),
    )


def _log_step(curves: Curves, log_time: np.ndarray) -> np.ndarray | None:
    """The resolution of time over the time since t_c, but at most 1, (N,)."""
    if (step := curves.time_resolution) is None:
        return None
    return step / np.maximum(np.abs(curves.clock.since(log_time)), step)


def _variances(curves: Curves, values: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Squares of the published errors of the numbers that are averaged, (1, T)."""
    return errors**2 if curves.log_above is None else (errors / (values - curves.log_above)) ** 2


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
