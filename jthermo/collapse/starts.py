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

import numpy as np

from jthermo.collapse.means import Means
from jthermo.collapse.settings import Settings

# A score with its exponents.
Scored = tuple[float, np.ndarray]


def starts(
    means: Means, variance: np.ndarray, bounds: np.ndarray, settings: Settings
) -> list[np.ndarray]:
    """The best distinct minima of the pairwise score, and the best one with much overlap.

    The score takes points as independent. Noise with memory makes curves that do belong together
    differ over whole stretches, so that the score prefers to shift them apart. The second scan, in
    which missing overlap costs more, gives a start for this case.

    Args:
        means: the averaged curves.
        variance: of each mean, (N,).
        bounds: of θ, (P, 2).
        settings: the constants of the fit.
    """
    costs = ((1.0, settings.num_starts), (settings.start_overlap_cost, 1))
    ranked: tuple[list[Scored], ...] = ([], [])
    for level, level_variance, ends in _of_logs(means, variance, bounds, settings):
        minima = _minima(level, level_variance, bounds, ends, costs, settings)
        for scored, part in zip(ranked, minima, strict=True):
            scored += part
    for scored in ranked:
        scored.sort(key=lambda pair: pair[0])
    return [
        start
        for scored, (_, number) in zip(ranked, costs, strict=True)
        for _, start in scored[:number]
    ]


def _of_logs(
    means: Means, variance: np.ndarray, bounds: np.ndarray, settings: Settings
) -> Iterator[tuple[Means, np.ndarray, np.ndarray]]:
    """The curves, their variance and the offsets to try; logs are taken anew for each offset."""
    if means.offset_unit is None:
        yield means, variance, np.zeros(0)
        return
    offsets = np.linspace(bounds[-1, 0], bounds[-1, 1], settings.start_offsets)
    if means.level is None or means.log_unit is None:
        yield means, variance, offsets
        return
    for offset in offsets:
        weight = 1 - offset / means.level
        mean = means.mean + np.log(weight) / means.log_unit
        yield replace(means, mean=mean), variance / weight**2, np.array([offset])


def _minima(
    means: Means,
    variance: np.ndarray,
    bounds: np.ndarray,
    offsets: np.ndarray,
    costs: tuple[tuple[float, int], ...],
    settings: Settings,
) -> list[list[Scored]]:
    """Scores and exponents of the best minima, for each cost of missing overlap."""
    pairs = _pairs(means, settings)
    clocks, shape = _clocks(means, bounds, settings)
    if means.lead is None:
        sums = _by_lags(means, pairs, clocks, settings)
    else:
        sums = _by_records(means, means.lead, pairs, clocks, settings)
    values, noise = _ordinary(means, variance, settings)
    heights = _heights(means, bounds, settings)
    first = np.unique(means.condition, return_index=True)[1]
    scales = means.log_height[first] + heights @ means.heights[first].T
    plain = means.log_unit is None
    shown = offsets * means.offset_unit if len(offsets) and plain else np.zeros(1)
    weights = np.concatenate(
        [_weights(scales, offset, pairs, noise, means.log_unit) for offset in shown]
    )
    # (clocks, heights and offsets)
    mismatch = sums.values @ weights.T
    best = np.argmin(mismatch, axis=1)
    least, between = _vertex(mismatch, best, len(heights))
    unseen = 0.5 * np.log1p(values)
    minima = []
    for cost, number in costs:
        score = least + cost * unseen * sums.missing
        minima.append(
            [
                (
                    float(score[pick]),
                    _theta(means, clocks[pick], heights, offsets, best[pick], between[pick]),
                )
                for pick in _apart(score.reshape(shape), sums.places, number, settings)
            ]
        )
    return minima


def _theta(
    means: Means,
    clock: np.ndarray,
    heights: np.ndarray,
    offsets: np.ndarray,
    pick: int,
    between: float,
) -> np.ndarray:
    """Exponents of a clock with one pair of heights and offset."""
    number = means.num_shifts
    offset = offsets[pick // len(heights)] if len(offsets) > 1 else offsets
    height = heights[pick % len(heights)]
    if means.num_heights == 1:
        height = height + between * (heights[1] - heights[0])
    return np.r_[clock[:number], height, clock[number:], offset]


def _vertex(
    mismatch: np.ndarray, best: np.ndarray, num_heights: int
) -> tuple[np.ndarray, np.ndarray]:
    """The least mismatch of each clock by a parabola through three heights, and its place, (m,).

    The place counts in steps of the heights from the best one.
    """
    rows, last = np.arange(len(best)), mismatch.shape[1] - 1
    middle = mismatch[rows, best]
    below, above = (mismatch[rows, np.clip(best + step, 0, last)] for step in (-1, 1))
    inside = (best % num_heights > 0) & (best % num_heights < num_heights - 1)
    bend = below + above - 2 * middle
    between = np.where(inside & (bend > 0), 0.5 * (below - above) / np.where(bend > 0, bend, 1), 0)
    return np.maximum(middle - 0.25 * (below - above) * between, 0.0), between


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
    log_unit: float | None,
) -> np.ndarray:
    """Factors on the sums that give ½χ² of all pairs, (Q, 6·pairs).

    Args:
        scales: log of the scale of each condition, (Q, K).
        offset: of the value.
        pairs: of conditions, (pairs, 2).
        noise: variance of each condition, with half the least mismatch that counts, (K,).
        log_unit: unit of log values; None if they are not logs.
    """
    first, second = scales[:, pairs[:, 0]], scales[:, pairs[:, 1]]
    noise_a, noise_b = noise[pairs[:, 0]], noise[pairs[:, 1]]
    one = np.ones_like(first)
    if log_unit is not None:
        apart = (first - second) / log_unit
        factors = [one, one, -2 * one, -2 * apart, 2 * apart, apart**2]
        weight = 0.5 / (noise_a + noise_b)
    else:
        # Heights relative to the middle of the pair.
        a, b = np.exp(0.5 * (second - first)), np.exp(0.5 * (first - second))
        lift = offset * (a - b)
        factors = [a**2, b**2, -2 * one, -2 * lift * a, 2 * lift * b, lift**2]
        weight = 0.5 / (a**2 * noise_a + b**2 * noise_b)
    return (np.stack(factors, axis=1) * np.expand_dims(weight, -2)).reshape(len(scales), -1)


def _ordinary(means: Means, variance: np.ndarray, settings: Settings) -> tuple[float, np.ndarray]:
    """Variance of all values over that of their noise, and the noise of each condition, (K,)."""
    floor = (settings.start_noise * (np.ptp(means.mean) or 1.0)) ** 2
    number = int(means.condition.max()) + 1
    noise = np.array([np.mean(variance[means.condition == k]) for k in range(number)])
    return float(np.var(means.mean) / (np.mean(variance) + floor)), noise + 0.5 * floor


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
    values = [np.interp(grid, x[m], means.mean[m], left=np.nan, right=np.nan) for m in members]
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
