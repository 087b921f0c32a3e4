"""Starts of the search: a dense scan over all exponents by table look-up.

The mismatch of a pair of curves, Σ (a/h_a − b/h_b)² over the records that overlap, follows from six
sums (n, Σa, Σb, Σa², Σb², Σab) that depend on the clock alone. For a clock log τ they are tabulated
once for all relative shifts; for a signed clock one curve is interpolated at the records of the
other. The score of any exponents is then a sum of table entries, so many thousands of candidates
cost almost nothing. Log-periodic and non-monotone curves, whose score has many minima, do not trap
the fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np

from jthermo.collapse.means import Means
from jthermo.collapse.settings import Settings

# A score with its exponents.
Scored = tuple[float, np.ndarray]


class Scan(NamedTuple):
    """One way to rank the exponents.

    Attributes:
        least: mismatch that does not yet distinguish candidates, in units of the range of values.
        cost: of a record without overlap, in units of what an average one could tell.
        number: of the best minima that become starts.
    """

    least: float
    cost: float
    number: int


def starts(
    means: Means, variance: np.ndarray, bounds: np.ndarray, settings: Settings
) -> list[np.ndarray]:
    """The best distinct minima of the pairwise score, and those with much overlap.

    The score takes points as independent. Noise with memory makes curves that do belong together
    differ over whole stretches, so that the score prefers to shift them apart. The second scan, in
    which missing overlap costs more, gives a start for this case. With more unknowns the grid is
    coarser, and precise curves mismatch at all its points; the third scan forgives more.

    Args:
        means: the averaged curves.
        variance: of each mean, (N,).
        bounds: of θ, (P, 2).
        settings: the constants of the fit.
    """
    fine, cost, number = settings.start_noise, settings.start_overlap_cost, settings.num_starts
    plain = means.lead is None and not means.num_heights
    scans = [Scan(fine, 1.0, number), Scan(fine, cost, 1 if plain else number)]
    if not plain:
        scans.append(Scan(settings.start_rough_noise, cost, number))
    ranked: list[list[Scored]] = [[] for _ in scans]
    for level, level_variance, offset in _of_logs(means, variance, bounds, settings):
        minima = _minima(level, level_variance, bounds, offset, scans, settings)
        for scored, part in zip(ranked, minima, strict=True):
            scored += part
    for scored in ranked:
        scored.sort(key=lambda pair: pair[0])
    return [
        start
        for scored, scan in zip(ranked, scans, strict=True)
        for _, start in scored[: scan.number]
    ]


def _of_logs(
    means: Means, variance: np.ndarray, bounds: np.ndarray, settings: Settings
) -> Iterator[tuple[Means, np.ndarray, np.ndarray]]:
    """The curves and their variance; their logs are taken anew for each offset to try."""
    if means.level is None or means.offset_unit is None or means.log_unit is None:
        yield means, variance, np.zeros(0)
        return
    # An offset just below the least value bends the logs most, so more of them are tried there.
    low, high = bounds[-1][0], max(min(bounds[-1][1], means.level.min()), bounds[-1][0])
    for offset in high - (high - low) * np.geomspace(1, 0.01, settings.start_offsets):
        far = means.level - offset
        weight, mean = np.hypot(far, 2 * means.bend) / means.level, means.bent(far, means.level)
        yield replace(means, mean=mean), variance / weight**2, np.array([offset])


def _minima(
    means: Means,
    variance: np.ndarray,
    bounds: np.ndarray,
    offset: np.ndarray,
    scans: list[Scan],
    settings: Settings,
) -> list[list[Scored]]:
    """Scores and exponents of the best minima of each scan."""
    pairs = _pairs(means, settings)
    clocks, shape = _clocks(means, bounds, settings)
    if means.lead is None:
        sums = _by_lags(means, pairs, clocks, settings)
    else:
        sums = _by_records(means, means.lead, pairs, clocks, settings)
    heights = _heights(means, bounds, settings)
    first = np.unique(means.condition, return_index=True)[1]
    scales = means.log_height[first] + heights @ means.heights[first].T
    linear = means.offset_unit is not None and means.log_unit is None
    ends = bounds[-1] if linear else np.zeros(2)
    # Three offsets, since the mismatch is a parabola of the offset.
    offsets = np.array([ends[0], ends.mean(), ends[1]]) * (means.offset_unit or 0.0)
    minima = []
    for least, cost, number in scans:
        contrast, noise, gap = _ordinary(means, variance, least)
        weights = [_weights(scales, v, pairs, noise, gap, means.log_unit) for v in offsets]
        score, height, place = _best([sums.values @ w.T for w in weights], heights, linear)
        score = score + cost * 0.5 * np.log1p(contrast) * sums.missing
        part = []
        for pick in _apart(score.reshape(shape), sums.places, number, settings):
            clock, middle = clocks[pick], ends.mean() + place[pick] * 0.5 * np.ptp(ends)
            last = [middle] if linear else offset
            theta = np.r_[clock[: means.num_shifts], height[pick], clock[means.num_shifts :], last]
            part.append((float(score[pick]), theta))
        minima.append(part)
    return minima


def _best(
    mismatch: list[np.ndarray], heights: np.ndarray, linear: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The least mismatch of each clock, (m,), its heights, (m, R), and its offset, (m,).

    The offset counts from −1 to 1 over its range, and is that of a parabola. So is the height, if
    there is one.

    Args:
        mismatch: at the least, middle and largest offset, (m, Q) each.
        heights: candidates, (Q, R).
        linear: whether an offset is fitted.
    """
    score, place = mismatch[1], np.zeros_like(mismatch[1])
    if linear:
        slope = 0.5 * (mismatch[2] - mismatch[0])
        bend = np.maximum(mismatch[2] + mismatch[0] - 2 * score, 1e-300)
        place = np.clip(-slope / bend, -1, 1)
        score = score + slope * place + 0.5 * bend * place**2
    rows, best = np.arange(len(score)), np.argmin(score, axis=1)
    middle, chosen = score[rows, best], heights[best]
    if heights.shape[1] == 1:
        last = len(heights) - 1
        inside = (best > 0) & (best < last)
        below, above = (score[rows, np.clip(best + step, 0, last)] for step in (-1, 1))
        bend = np.where(inside, below + above - 2 * middle, np.inf)
        between = 0.5 * (below - above) / np.maximum(bend, 1e-300)
        between = np.clip(between, -0.5, 0.5)
        middle = middle - 0.25 * (below - above) * between
        chosen = chosen + between[:, None] * (heights[1] - heights[0])
    return middle, chosen, place[rows, best]


def _pairs(means: Means, settings: Settings) -> np.ndarray:
    """All pairs of conditions, or some if there are very many, (pairs, 2)."""
    number = int(means.condition.max()) + 1
    pairs = np.array([(a, b) for a in range(number) for b in range(a + 1, number)]).reshape(-1, 2)
    most = settings.start_max_pairs if means.lead is None else settings.start_signed_pairs
    if len(pairs) > most:
        pairs = pairs[np.linspace(0, len(pairs) - 1, most).astype(int)]
    return pairs


def _clocks(
    means: Means, bounds: np.ndarray, settings: Settings
) -> tuple[np.ndarray, tuple[int, ...]]:
    """All candidates for the shifts and the critical point, (m, P), and the shape of their grid."""
    ends = bounds[means.movers]
    grid = settings.start_grid if means.lead is None else settings.start_signed_grid
    number = len(ends)
    if not number:
        return np.zeros((1, 0)), (1,)
    most = max(3, int(settings.start_grid_total ** (1 / number)))
    points = grid[number - 1] if number <= len(grid) else most
    axes = [np.linspace(low, high, points) for low, high in ends]
    mesh = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return mesh.reshape(-1, number), mesh.shape[:-1]


def _heights(means: Means, bounds: np.ndarray, settings: Settings) -> np.ndarray:
    """All candidates for the exponents of the value's scale, (Q, R)."""
    number = means.num_heights
    if not number:
        return np.zeros((1, 0))
    grid = settings.start_heights
    points = grid[min(number, len(grid)) - 1]
    ends = bounds[means.num_shifts : means.num_shifts + number]
    return np.array(list(product(*(np.linspace(low, high, points) for low, high in ends))))


@dataclass(frozen=True)
class _Sums:
    """What the pairs of curves have in common at each clock.

    Attributes:
        values: Σa², Σb², Σab, Σa, Σb, n of each pair, (m, 6·pairs).
        missing: records without overlap, of all pairs, (m,).
        places: where the curves stand relative to each other, in lengths of a curve, (m, any).
    """

    values: np.ndarray
    missing: np.ndarray
    places: np.ndarray


def _weights(
    scales: np.ndarray,
    offset: float,
    pairs: np.ndarray,
    noise: np.ndarray,
    least_gap: np.ndarray,
    log_unit: float | None,
) -> np.ndarray:
    """Factors on the sums that give −log likelihood of all pairs, (Q, 6·pairs).

    Args:
        scales: log of the scale of each condition, (Q, K).
        offset: of the value.
        pairs: of conditions, (pairs, 2).
        noise: variance of each condition, (K,).
        least_gap: half the square of the least mismatch that counts, for each condition, (K,).
        log_unit: unit of log values; None if they are not logs.
    """
    first, second = scales[:, pairs[:, 0]], scales[:, pairs[:, 1]]
    noise_a, noise_b = noise[pairs].T
    least_a, least_b = least_gap[pairs].T
    drowned = 0.0
    one = np.ones_like(first)
    if log_unit is not None:
        apart = (first - second) / log_unit
        factors = [one, one, -2 * one, -2 * apart, 2 * apart, apart**2]
        weight = 0.5 / (noise_a + least_a + noise_b + least_b)
    else:
        # Heights relative to the middle of the pair.
        a, b = np.exp(0.5 * (second - first)), np.exp(0.5 * (first - second))
        lift = offset * (a - b)
        factors = [a**2, b**2, -2 * one, -2 * lift * a, 2 * lift * b, lift**2]
        weight = 0.5 / (a**2 * (noise_a + least_a) + b**2 * (noise_b + least_b))
        # Heights that drown a difference in noise make it no likelier.
        drowned = 0.5 * np.log((a**2 * noise_a + b**2 * noise_b) / (noise_a + noise_b))
    out = np.stack(factors, axis=1) * np.expand_dims(weight, -2)
    out[:, 5] += drowned
    return out.reshape(len(scales), -1)


def _ordinary(
    means: Means, variance: np.ndarray, least: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Variance of values over that of noise; noise and `least_gap` of each condition, (K,)."""
    parts = [means.condition == k for k in range(int(means.condition.max()) + 1)]
    noise = np.array([np.mean(variance[part]) for part in parts])
    scale = np.full(len(parts), np.ptp(means.mean) or 1.0)
    floor = (least * scale) ** 2
    contrast = np.var(means.mean) / (np.mean(variance) + floor[0])
    if means.num_heights:
        # A factor on the value makes the range of one curve that of another.
        floor = (least * np.array([np.ptp(means.mean[part]) for part in parts])) ** 2
        contrast = np.max([np.var(means.mean[part]) for part in parts] / (noise + floor + 1e-300))
    return float(contrast), noise, 0.5 * floor


def _by_lags(means: Means, pairs: np.ndarray, clocks: np.ndarray, settings: Settings) -> _Sums:
    """The sums from tables of all relative shifts on a common grid of log t."""
    number = int(means.condition.max()) + 1
    x = means.binned(means.x)
    controls = means.binned(means.controls)
    members = [np.flatnonzero(means.condition == k) for k in range(number)]
    length = np.median([np.ptp(x[m]) for m in members])
    low, high = x.min(), x.max()
    cells = settings.start_cells
    step = max(length / cells, (high - low) / (settings.start_max_lengths * cells), 1e-9)
    grid = np.arange(low, high + step, step)
    values = [_on_grid(grid, x[m], means.mean[m]) for m in members]
    centres = np.array([controls[m[0]] for m in members])
    differences = centres[pairs[:, 1]] - centres[pairs[:, 0]]
    # In cells, (m, pairs).
    shifts = clocks @ differences.T / step
    lags = np.arange(-len(grid) + 1, len(grid))
    sums = np.zeros((len(clocks), 6, len(pairs)))
    missing = np.zeros(len(clocks))
    for i, (a, b) in enumerate(pairs):
        tables, unseen = _correlations(values[a], values[b])
        for j, table in enumerate(tables):
            sums[:, j, i] = np.interp(shifts[:, i], lags, table)
        missing += np.interp(shifts[:, i], lags, unseen)
    return _Sums(sums.reshape(len(clocks), -1), missing, shifts / cells)


def _on_grid(grid: np.ndarray, x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """One curve on the grid, NaN where it was not recorded."""
    values = np.interp(grid, x, mean, left=np.nan, right=np.nan)
    if not np.isfinite(values).any():
        # A curve shorter than a cell takes the nearest one.
        values[np.argmin(np.abs(grid - x[0]))] = mean.mean()
    return values


def _correlations(first: np.ndarray, second: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The six sums and the cells without overlap, at the lags −n+1 … n−1 of the second curve."""
    seen_a, seen_b = np.isfinite(first), np.isfinite(second)
    a, b = np.where(seen_a, first, 0.0), np.where(seen_b, second, 0.0)

    def correlate(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return np.correlate(p.astype(float), q.astype(float), mode="full")

    overlap = correlate(seen_a, seen_b)
    missing = np.maximum(min(seen_a.sum(), seen_b.sum()) - overlap, 0)
    squares = [correlate(a**2, seen_b), correlate(seen_a, b**2), correlate(a, b)]
    return [*squares, correlate(a, seen_b), correlate(seen_a, b), overlap], missing


def _by_records(
    means: Means, leads: np.ndarray, pairs: np.ndarray, clocks: np.ndarray, settings: Settings
) -> _Sums:
    """The sums over the records of each curve, where the other one is interpolated."""
    number = int(means.condition.max()) + 1
    first = np.unique(means.condition, return_index=True)[1]
    times = np.sinh(means.binned(means.x))
    lead = means.binned(leads)[first]
    # Scale of τ of each condition at each clock, (m, K).
    scale = np.exp(clocks[:, : means.num_shifts] @ means.binned(means.controls)[first].T)
    critical = clocks[:, -1] if means.critical else np.zeros(len(clocks))
    members = [np.flatnonzero(means.condition == k) for k in range(number)]
    most = settings.start_records
    thin = [m[np.linspace(0, len(m) - 1, min(len(m), most)).astype(int)] for m in members]
    sums = np.zeros((len(clocks), 6, len(pairs)))
    missing = np.zeros(len(clocks))
    for i, pair in enumerate(pairs):
        seen = np.zeros(len(clocks))
        for (a, b), order in ((pair, (0, 1, 2, 3, 4)), (pair[::-1], (1, 0, 2, 4, 3))):
            tau = (times[thin[a]] - critical[:, None] * lead[a]) * scale[:, a, None]
            at = tau / scale[:, b, None] + critical[:, None] * lead[b]
            old = members[b]
            other = np.interp(at, times[old], means.mean[old], left=np.nan, right=np.nan)
            inside = np.isfinite(other)
            other = np.where(inside, other, 0.0)
            mine = np.where(inside, means.mean[thin[a]], 0.0)
            parts = (mine**2, other**2, mine * other, mine, other)
            for j, part in zip(order, parts, strict=True):
                sums[:, j, i] += 0.5 * part.sum(axis=1)
            sums[:, 5, i] += 0.5 * inside.sum(axis=1)
            seen += inside.mean(axis=1)
        missing += (1 - np.minimum(seen, 1.0)) * min(len(thin[k]) for k in pair)
    ends = np.concatenate([[m[0], m[len(m) // 2], m[-1]] for m in members])
    conditions = means.condition[ends]
    tau = (times[ends] - critical[:, None] * lead[conditions]) * scale[:, conditions]
    places = np.arcsinh(tau)
    length = np.median([np.ptp(np.arcsinh(times[m])) for m in members]) or 1.0
    return _Sums(sums.reshape(len(clocks), -1), missing, places / length)


def _apart(score: np.ndarray, places: np.ndarray, number: int, settings: Settings) -> list[int]:
    """The best minima, each of which shifts some pair differently from all better ones.

    Where curves hardly overlap the score is a ramp with ripples; one of them represents all.
    """
    minima = _local_minima(score)
    score = score.ravel()
    apart: list[int] = []
    for pick in minima[np.argsort(score[minima])]:
        gaps = (np.abs(places[pick] - places[other]).max(initial=0.0) for other in apart)
        if all(gap > settings.start_separation for gap in gaps):
            apart.append(pick)
        if len(apart) == number:
            break
    return apart


def _local_minima(score: np.ndarray) -> np.ndarray:
    """Flat indices of the entries with no smaller neighbour along any axis."""
    padded = np.pad(score, 1, constant_values=np.inf)
    inner = tuple(slice(1, -1) for _ in range(score.ndim))
    lowest = np.ones(score.shape, bool)
    for axis in range(score.ndim):
        for move in (-1, 1):
            lowest &= score <= np.roll(padded, move, axis=axis)[inner]
    return np.flatnonzero(lowest)
