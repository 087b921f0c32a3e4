"""Where to start: a dense scan over all exponents by table look-up.

For each pair of curves the mismatch as a function of their relative shift is tabulated once; the score of
any exponents is then a sum of table entries at the shifts they imply, so thousands of candidates cost
nothing and log-periodic or non-monotone curves, whose score has many minima, do not trap the fit.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from jthermo.collapse.likelihood import Means

GRID = 160  # cells of the common log t grid per curve length
COARSE_NOISE = 0.02  # of the curves' range: mismatches below this do not yet tell candidates apart
MAX_PAIRS = 120
DEAR = 10.0  # cost of cells without overlap, for the start that is sure to have some; noise with memory asks for it
APART = GRID / 16  # cells by which some pair must shift between two candidates
HEIGHTS = 33  # candidates for each exponent of the value's scale


def starts(means: Means, variance: np.ndarray, bounds: np.ndarray, how_many: int = 4) -> list[np.ndarray]:
    """The best distinct minima of the pairwise score within the bounds (P, 2), and the best with much overlap.

    Noise with memory makes curves that do belong together differ over whole stretches, so that the score, which
    takes points as independent, would rather have them apart; hence the last.
    """
    num_shifts = means.controls.shape[1]
    heights = [np.linspace(low, high, HEIGHTS) for low, high in bounds[num_shifts:]]
    found: tuple[list[tuple[float, np.ndarray]], ...] = ([], [])
    for powers in product(*heights):
        theta = np.r_[np.zeros(num_shifts), powers]
        height = means.height(theta)
        level = replace(means, mean=means.mean / height)
        minima = _shifts(level, variance / height**2, bounds[:num_shifts], (how_many, 1))
        for kind, part in zip(found, minima, strict=True):
            kind += [(score, np.r_[start, powers]) for score, start in part]
    for kind in found:
        kind.sort(key=lambda pair: pair[0])
    return [start for kind, number in zip(found, (how_many, 1), strict=True) for _, start in kind[:number]]


def _shifts(
    means: Means, variance: np.ndarray, bounds: np.ndarray, numbers: tuple[int, int]
) -> list[list[tuple[float, np.ndarray]]]:
    """Scores and shifts of the best minima with the heights given: of the score, and with overlap dear."""
    mismatch, unseen, differences, step = _pair_tables(means, variance)
    half = (mismatch.shape[1] - 1) // 2
    num_controls = len(bounds)
    if not num_controls:
        return [[(float((mismatch + dear * unseen)[:, half].sum()), np.zeros(0))] for dear in (1.0, DEAR)]
    axes = [np.linspace(low, high, _resolution(num_controls)) for low, high in bounds]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    shape, grid = grid.shape[:-1], grid.reshape(-1, num_controls)
    shifts = grid @ differences.T / step  # (candidates, pairs) in cells
    lags = np.arange(-half, half + 1)
    out = []
    for dear, number in zip((1.0, DEAR), numbers, strict=True):
        score = np.zeros(len(grid))
        for column, table in zip(shifts.T, mismatch + dear * unseen, strict=True):
            score += np.interp(column, lags, table)
        minima = _local_minima(score.reshape(shape))
        apart: list[int] = []
        for pick in minima[np.argsort(score[minima])]:
            # Where curves hardly meet the score is a ramp with ripples: one of them stands for all.
            if all(np.abs(shifts[pick] - shifts[other]).max() > APART for other in apart):
                apart.append(pick)
            if len(apart) == number:
                break
        out.append([(float(score[pick]), grid[pick]) for pick in apart])
    return out


def _resolution(num_controls: int) -> int:
    return {1: 601, 2: 121, 3: 41}.get(num_controls, max(3, int(60_000 ** (1 / num_controls))))


def _pair_tables(means: Means, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mismatch of each pair against the shift: ½χ² where they overlap, and a fixed cost where not."""
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
    floor = (COARSE_NOISE * scale) ** 2
    tables = np.array([_mismatch(values[a], noise[a], values[b], noise[b], floor) for a, b in pairs])
    centres = np.array([controls[m[0]] for m in members])
    differences = np.array([centres[b] - centres[a] for a, b in pairs])
    return tables[:, 0], unseen * tables[:, 1], differences, step


def _mismatch(first, noise_a, second, noise_b, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """½χ² and cells without overlap at every lag of the second curve against the first, lags −n+1 … n−1.

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
    return 0.5 * weight * np.maximum(square, 0), np.maximum(missing, 0)


def _local_minima(score: np.ndarray) -> np.ndarray:
    """Flat indices of the entries that no neighbour along an axis undercuts."""
    padded = np.pad(score, 1, constant_values=np.inf)
    inner = tuple(slice(1, -1) for _ in range(score.ndim))
    lowest = np.ones(score.shape, bool)
    for axis in range(score.ndim):
        for move in (-1, 1):
            lowest &= score <= np.roll(padded, move, axis=axis)[inner]
    return np.flatnonzero(lowest)
