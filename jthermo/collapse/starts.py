"""Starts of the search: a dense scan over all exponents by table look-up.

For each pair of curves the mismatch as a function of their relative shift is tabulated once. The
score of any exponents is then a sum of table entries at the shifts they imply, so thousands of
candidates cost almost nothing. Log-periodic and non-monotone curves, whose score has many minima,
do not trap the fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from jthermo.collapse.averages import Means
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
    num_shifts = means.controls.shape[1]
    heights = [np.linspace(low, high, settings.start_heights) for low, high in bounds[num_shifts:]]
    costs = ((1.0, settings.num_starts), (settings.start_overlap_cost, 1))
    ranked: tuple[list[Scored], ...] = ([], [])
    for exponents in product(*heights):
        theta = np.r_[np.zeros(num_shifts), exponents]
        height = means.height(theta)
        level = replace(means, mean=means.mean / height)
        minima = _shifts(level, variance / height**2, bounds[:num_shifts], costs, settings)
        for scored, part in zip(ranked, minima, strict=True):
            scored += [(score, np.r_[start, exponents]) for score, start in part]
    for scored in ranked:
        scored.sort(key=lambda pair: pair[0])
    return [
        start
        for scored, (_, number) in zip(ranked, costs, strict=True)
        for _, start in scored[:number]
    ]


def _shifts(
    means: Means,
    variance: np.ndarray,
    bounds: np.ndarray,
    costs: tuple[tuple[float, int], ...],
    settings: Settings,
) -> list[list[Scored]]:
    """Scores and shifts of the best minima at given heights, for each cost of missing overlap."""
    tables = _pair_tables(means, variance, settings)
    half = (tables.mismatch.shape[1] - 1) // 2
    num_controls = len(bounds)
    if not num_controls:
        return [[(float(tables.cost(cost)[:, half].sum()), np.zeros(0))] for cost, _ in costs]
    axes = [np.linspace(low, high, _resolution(num_controls, settings)) for low, high in bounds]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    shape, grid = grid.shape[:-1], grid.reshape(-1, num_controls)
    # In cells, (candidates, pairs).
    shifts = grid @ tables.differences.T / tables.step
    lags = np.arange(-half, half + 1)
    minima = []
    for cost, number in costs:
        score = np.zeros(len(grid))
        for column, table in zip(shifts.T, tables.cost(cost), strict=True):
            score += np.interp(column, lags, table)
        minima.append(
            [
                (float(score[pick]), grid[pick])
                for pick in _apart(score.reshape(shape), shifts, number, settings)
            ]
        )
    return minima


def _apart(score: np.ndarray, shifts: np.ndarray, number: int, settings: Settings) -> list[int]:
    """The best minima, each of which shifts some pair differently from all better ones.

    Where curves hardly overlap the score is a ramp with ripples; one of them represents all.
    """
    distance = settings.start_cells * settings.start_separation
    minima = _local_minima(score)
    score = score.ravel()
    apart: list[int] = []
    for pick in minima[np.argsort(score[minima])]:
        if all(np.abs(shifts[pick] - shifts[other]).max() > distance for other in apart):
            apart.append(pick)
        if len(apart) == number:
            break
    return apart


def _resolution(num_controls: int, settings: Settings) -> int:
    """Candidates per control."""
    if num_controls <= len(settings.start_grid):
        return settings.start_grid[num_controls - 1]
    return max(3, int(settings.start_grid_total ** (1 / num_controls)))


@dataclass(frozen=True)
class _Tables:
    """Costs of each pair of conditions against the shift, in cells.

    Attributes:
        mismatch: ½χ² where the two overlap, (pairs, shifts).
        unseen: cost of the cells without overlap, (pairs, shifts).
        differences: of the centred log controls, (pairs, P).
        step: width of a cell in log t.
    """

    mismatch: np.ndarray
    unseen: np.ndarray
    differences: np.ndarray
    step: float

    def cost(self, overlap_cost: float) -> np.ndarray:
        """Both together, (pairs, shifts)."""
        return self.mismatch + overlap_cost * self.unseen


def _pair_tables(means: Means, variance: np.ndarray, settings: Settings) -> _Tables:
    """The costs of all pairs, or of some if there are very many."""
    number = int(means.condition.max()) + 1
    x = means.binned(means.x)
    controls = means.binned(means.controls)
    members = [np.flatnonzero(means.condition == k) for k in range(number)]
    length = np.median([np.ptp(x[m]) for m in members])
    low, high = x.min(), x.max()
    cells = settings.start_cells
    step = max(length / cells, (high - low) / (settings.start_max_lengths * cells), 1e-9)
    grid = np.arange(low, high + step, step)
    scale = np.ptp(means.mean) or 1.0
    values = np.full((number, len(grid)), np.nan)
    noise = np.full((number, len(grid)), np.nan)
    for k, m in enumerate(members):
        values[k] = np.interp(grid, x[m], means.mean[m], left=np.nan, right=np.nan)
        if not np.isfinite(values[k]).any():
            # A curve shorter than a cell takes the nearest one.
            values[k, np.argmin(np.abs(grid - x[m[0]]))] = means.mean[m].mean()
        noise[k] = np.interp(grid, x[m], variance[m])
    floor = (settings.start_noise * scale) ** 2
    unseen = 0.5 * np.log1p(np.nanvar(values) / (np.mean(variance) + floor))
    pairs = [(a, b) for a in range(number) for b in range(a + 1, number)]
    if len(pairs) > settings.start_max_pairs:
        some = np.linspace(0, len(pairs) - 1, settings.start_max_pairs).astype(int)
        pairs = [pairs[i] for i in some]
    tables = np.array(
        [_mismatch(values[a], noise[a], values[b], noise[b], floor) for a, b in pairs]
    )
    centres = np.array([controls[m[0]] for m in members])
    differences = np.array([centres[b] - centres[a] for a, b in pairs])
    return _Tables(tables[:, 0], unseen * tables[:, 1], differences, step)


def _mismatch(
    first: np.ndarray, noise_a: np.ndarray, second: np.ndarray, noise_b: np.ndarray, floor: float
) -> tuple[np.ndarray, np.ndarray]:
    """½χ² and number of cells without overlap, at the lags −n+1 … n−1 of the second curve.

    χ² is Σ (a − b)²/(va + vb) with the mean noise of each curve, which takes three correlations.
    """
    seen_a, seen_b = np.isfinite(first), np.isfinite(second)
    weight = 1 / (floor + np.mean(noise_a[seen_a]) + np.mean(noise_b[seen_b]))
    a, b = np.where(seen_a, first, 0.0), np.where(seen_b, second, 0.0)

    def correlate(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return np.correlate(p.astype(float), q.astype(float), mode="full")

    overlap = correlate(seen_a, seen_b)
    square = correlate(a**2, seen_b) + correlate(seen_a, b**2) - 2 * correlate(a, b)
    missing = min(seen_a.sum(), seen_b.sum()) - overlap
    return 0.5 * weight * np.maximum(square, 0), np.maximum(missing, 0)


def _local_minima(score: np.ndarray) -> np.ndarray:
    """Flat indices of the entries with no smaller neighbour along any axis."""
    padded = np.pad(score, 1, constant_values=np.inf)
    inner = tuple(slice(1, -1) for _ in range(score.ndim))
    lowest = np.ones(score.shape, bool)
    for axis in range(score.ndim):
        for move in (-1, 1):
            lowest &= score <= np.roll(padded, move, axis=axis)[inner]
    return np.flatnonzero(lowest)
