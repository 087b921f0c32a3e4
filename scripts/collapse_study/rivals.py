"""The usual way to fit a collapse: the quality S of Houdayer and Hartmann (2004), as in fssa.

Every averaged point (x, y ± dy) is compared with the straight line through the two points on either
side of it in each of the other curves, weighted by their errors:

    S = (1/N) Σ (y − Y)² / (dy² + dY²).

Written anew from the paper, since fssa 0.7.6 does not import on Python 3.11. As S has many minima,
each fitter starts at the truth, which no user could do. Three rules turn S into a 95 % interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jthermo.collapse import Exponent, Note
from scripts.collapse_study.families import Draw

RULES = ("chi2", "fssa", "bootstrap")
# Quantile of a 95 % interval.
NORMAL = 1.959964
# Sets of resampled replicates of the bootstrap. Chosen.
RESAMPLES = 30
# Points of each scan for the minimum. Chosen.
SCAN = 21
# An interval is followed up to this distance from the minimum.
WIDEST = 6.0
# No error is below this share of the median error: a few replicates may agree by chance. Chosen.
LEAST_ERROR = 0.1


@dataclass(frozen=True)
class Answer:
    """The fields of a CollapseFit that are scored. S gives no verdict and no notes."""

    exponents: dict[str, Exponent]
    identifiable: dict[str, bool]
    collapsed: bool | None = None
    p_value: float = np.nan
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Curve:
    """The replicates of one condition, (R, T)."""

    log_control: float
    log_time: np.ndarray
    values: np.ndarray

    def averaged(self, pick: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard error of the picked replicates, from neighbours if there is one."""
        values = self.values[pick]
        number = np.maximum(np.isfinite(values).sum(axis=0), 1)
        mean = np.nanmean(values, axis=0)
        if len(self.values) > 1:
            error = np.nanstd(values, axis=0) / np.sqrt(np.maximum(number - 1, 1))
        else:
            bend = np.convolve(mean, [-0.5, 1.0, -0.5], mode="valid") / np.sqrt(1.5)
            error = np.full(len(mean), np.sqrt(np.mean(bend**2)))
        return mean, np.maximum(error, LEAST_ERROR * np.median(error) + 1e-12)


def curves_of(draw: Draw) -> list[Curve]:
    """One curve per value of the only control, without replicates that diverge."""
    (name,) = draw.controls
    out = []
    for level in np.unique(draw.table[name]):
        part = draw.table[draw.table[name] == level]
        wide = part.pivot_table(index="seed", columns="step", values="value", dropna=False)
        values = wide.to_numpy()
        good = np.isnan(values).mean(axis=1) < 0.05
        good &= ~np.isinf(values).any(axis=1)
        out.append(Curve(float(np.log(level)), np.log(wide.columns.to_numpy(float)), values[good]))
    return out


def quality_by_set(
    sets: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> list[tuple[float, int]]:
    """Sum and number of the terms of S for each of the sets (x, y, dy) with increasing x."""
    out = []
    for i, (x, y, dy) in enumerate(sets):
        # Sums of w, w·x, w·y, w·x², w·x·y over the neighbours, with x relative to the point.
        sums = np.zeros((5, len(x)))
        for j, (there, height, error) in enumerate(sets):
            if i == j:
                continue
            right = np.searchsorted(there, x)
            inside = (right > 0) & (right < len(there))
            for side in (right[inside] - 1, right[inside]):
                w, gap, level = error[side] ** -2.0, there[side] - x[inside], height[side]
                sums[:, inside] += w * np.stack(
                    [np.ones_like(gap), gap, level, gap**2, gap * level]
                )
        k, kx, ky, kxx, kxy = sums
        area = k * kxx - kx**2
        known = area > 1e-12 * k * kxx
        line = (kxx * ky - kx * kxy)[known] / area[known]
        variance = kxx[known] / area[known]
        total = float(np.sum((y[known] - line) ** 2 / (dy[known] ** 2 + variance)))
        out.append((total, int(known.sum())))
    return out


def quality(sets: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[float, int]:
    """S and the number N of its terms, for sets (x, y, dy) with increasing x."""
    total, terms = (sum(column) for column in zip(*quality_by_set(sets), strict=True))
    return (total / terms, terms) if terms else (np.inf, 0)


def _scores(curves: list[Curve], averages: list[tuple[np.ndarray, np.ndarray]]) -> Callable:
    middle = np.mean([c.log_control for c in curves])

    def score(power: float) -> tuple[float, int]:
        return quality(
            [
                (c.log_time + power * (c.log_control - middle), *average)
                for c, average in zip(curves, averages, strict=True)
            ]
        )

    return score


def _minimum(score: Callable, start: float, width: float) -> float:
    """The minimum by ever finer scans: S is rough, and a simplex would stop at the first dent."""
    best = start
    while width > 1e-4:
        grid = best + width * np.linspace(-1, 1, SCAN)
        best = float(grid[np.argmin([score(power)[0] for power in grid])])
        width *= 3 / SCAN
    return best


def _crossing(score: Callable, best: float, level: float, side: int) -> float:
    """Where S first exceeds the level on one side of its minimum."""
    inner, step = 0.0, 1e-3
    while score(best + side * (inner + step))[0] <= level:
        inner, step = inner + step, 1.5 * step
        if inner > WIDEST:
            return best + side * inner
    outer = inner + step
    for _ in range(12):
        middle = 0.5 * (inner + outer)
        inner, outer = (
            (middle, outer) if score(best + side * middle)[0] <= level else (inner, middle)
        )
    return best + side * outer


def by_quality(draw: Draw, rule: str) -> Answer:
    """The exponent of least S with its interval.

    Args:
        draw: a data set with one control.
        rule: "chi2": N·S may rise by 1.96², as if it were χ² of independent terms; "fssa": ± 1.96
            standard errors, S having twice its least value at one, which is S + 1 where S = 1;
            "bootstrap": ± 1.96 standard deviations over resampled replicates.
    """
    (name,) = draw.controls
    curves = curves_of(draw)
    everyone = [c.averaged(np.arange(len(c.values))) for c in curves]
    score = _scores(curves, everyone)
    width = 0.5 / np.median(np.diff([c.log_control for c in curves]))
    best = _minimum(score, draw.truth[name], width)
    least, terms = score(best)
    if not np.isfinite(least):
        raise ValueError("no overlap")
    if rule == "bootstrap":
        rng = np.random.default_rng(0)
        again = []
        for _ in range(RESAMPLES):
            averages = []
            for c, (mean, error) in zip(curves, everyone, strict=True):
                if len(c.values) == 1:
                    averages.append((mean + error * rng.standard_normal(len(mean)), error))
                else:
                    averages.append(
                        (c.averaged(rng.integers(len(c.values), size=len(c.values)))[0], error)
                    )
            again.append(_minimum(_scores(curves, averages), best, width))
        half = NORMAL * float(np.std(again, ddof=1))
        low, high = best - half, best + half
    elif rule == "chi2":
        low, high = (_crossing(score, best, least + NORMAL**2 / terms, side) for side in (-1, 1))
    else:
        low, high = (
            best + NORMAL * (_crossing(score, best, 2 * least, side) - best) for side in (-1, 1)
        )
    exponent = Exponent(best, low, high, (high - low) / (2 * NORMAL))
    return Answer({name: exponent}, {name: True})


def rival(rule: str) -> Callable[[Draw], Answer]:
    """The fitter of one rule."""
    return lambda draw: by_quality(draw, rule)
