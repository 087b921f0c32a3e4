"""Where to start: a dense scan over all exponents by table look-up.

For each pair of curves the mismatch as a function of their relative shift is tabulated once; the score of
any exponents is then a sum of table entries at the shifts they imply, so thousands of candidates cost
nothing and log-periodic or non-monotone curves, whose score has many minima, do not trap the fit.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from .curve import Means

GRID = 160  # cells of the common log t grid per curve length
COARSE_NOISE = 0.02  # of the curves' range: mismatches below this do not yet tell candidates apart
MAX_PAIRS = 120
HEIGHTS = 33  # candidates for each exponent of the value's scale


def starts(means: Means, variance: np.ndarray, bounds: np.ndarray, how_many: int = 5) -> list[np.ndarray]:
    """The best distinct minima of the pairwise score within the bounds (P, 2), best first."""
    num_shifts = means.controls.shape[1]
    heights = [np.linspace(low, high, HEIGHTS) for low, high in bounds[num_shifts:]]
    found = []
    for powers in product(*heights):
        theta = np.r_[np.zeros(num_shifts), powers]
        height = means.height(theta)
        level = replace(means, mean=means.mean / height)
        found += [
            (score, np.r_[start, powers])
            for score, start in _shifts(level, variance / height**2, bounds[:num_shifts], how_many)
        ]
    found.sort(key=lambda pair: pair[0])
    return [start for _, start in found[:how_many]]


def _shifts(
    means: Means, variance: np.ndarray, bounds: np.ndarray, how_many: int
) -> list[tuple[float, np.ndarray]]:
    """Scores and shifts of the best minima with the heights given."""
    tables, differences, step = _pair_tables(means, variance)
    num_controls = len(bounds)
    if not num_controls:
        return [(float(tables[:, (tables.shape[1] - 1) // 2].sum()), np.zeros(0))]
    axes = [np.linspace(low, high, _resolution(num_controls)) for low, high in bounds]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    shifts = (grid.reshape(-1, num_controls) @ differences.T) / step  # (candidates, pairs) in cells
    half = (tables.shape[1] - 1) // 2
    lags = np.arange(-half, half + 1)
    total = sum(np.interp(column, lags, table) for column, table in zip(shifts.T, tables, strict=True))
    score = np.broadcast_to(total, len(shifts)).reshape(grid.shape[:-1])
    minima = _local_minima(score)
    order = np.argsort(score[minima])[:how_many]
    return [(float(score[minima][pick]), grid[tuple(index[pick] for index in minima)]) for pick in order]


def _resolution(num_controls: int) -> int:
    return {1: 601, 2: 121, 3: 41}.get(num_controls, max(3, int(60_000 ** (1 / num_controls))))


def _pair_tables(means: Means, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Mismatch of each pair against the shift: ½χ² where they overlap, a fixed cost where not."""
    number = int(means.condition.max()) + 1
    x = means.binned(means.x)
    controls = means.binned(means.controls)
    members = [np.flatnonzero(means.condition == k) for k in range(number)]
    length = np.median([np.ptp(x[m]) for m in members])
    low, high = x.min(), x.max()
    step = max(length / GRID, (high - low) / (4 * GRID), 1e-9)
    cells = np.arange(low, high + step, step)
    scale = np.ptp(means.mean) or 1.0
    values = np.full((number, len(cells)), np.nan)
    noise = np.full((number, len(cells)), np.nan)
    for k, m in enumerate(members):
        values[k] = np.interp(cells, x[m], means.mean[m], left=np.nan, right=np.nan)
        noise[k] = np.interp(cells, x[m], variance[m])
    unseen = 0.5 * np.log1p(np.nanvar(values) / (np.mean(variance) + (COARSE_NOISE * scale) ** 2))
    pairs = [(a, b) for a in range(number) for b in range(a + 1, number)]
    if len(pairs) > MAX_PAIRS:
        pairs = [pairs[i] for i in np.linspace(0, len(pairs) - 1, MAX_PAIRS).astype(int)]
    half = len(cells) - 1
    tables = np.empty((len(pairs), 2 * half + 1))
    for row, (a, b) in enumerate(pairs):
        tables[row] = _mismatch(values[a], noise[a], values[b], noise[b], (COARSE_NOISE * scale) ** 2, unseen)
    centres = np.array([controls[m[0]] for m in members])
    differences = np.array([centres[b] - centres[a] for a, b in pairs])
    return tables, differences, step


def _mismatch(first, noise_a, second, noise_b, floor: float, unseen: float) -> np.ndarray:
    """Score at every lag of the second curve against the first, lags −n+1 … n−1.

    Σ (a − b)²/(va + vb) with the noise taken at its mean over each curve: three correlations by FFT-free
    convolution.
    """
    seen_a, seen_b = np.isfinite(first), np.isfinite(second)
    weight = 1 / (floor + np.mean(noise_a[seen_a]) + np.mean(noise_b[seen_b]))
    a, b = np.where(seen_a, first, 0.0), np.where(seen_b, second, 0.0)

    def correlate(p, q):
        return np.correlate(p.astype(float), q.astype(float), mode="full")

    overlap = correlate(seen_a, seen_b)
    square = correlate(a**2, seen_b) + correlate(seen_a, b**2) - 2 * correlate(a, b)
    missing = min(seen_a.sum(), seen_b.sum()) - overlap
    return 0.5 * weight * np.maximum(square, 0) + unseen * np.maximum(missing, 0)


def _local_minima(score: np.ndarray) -> tuple[np.ndarray, ...]:
    """Indices of the entries that no neighbour along an axis undercuts."""
    padded = np.pad(score, 1, constant_values=np.inf)
    inner = tuple(slice(1, -1) for _ in range(score.ndim))
    lowest = np.ones(score.shape, bool)
    for axis in range(score.ndim):
        for move in (-1, 1):
            lowest &= score <= np.roll(padded, move, axis=axis)[inner]
    return np.nonzero(lowest)
