"""Statements about mean curves, with errors from the scatter of seeds: local slopes, and comparisons at an equal level."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jthermo.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


class Slopes(NamedTuple):
    """Mean slope of runs in each window of a clock, and the mean of another variable there.

    Attributes:
        middle: geometric or arithmetic middle of each window, (K,).
        slope: mean over runs of the change over the window's length, (K,).
        slope_error: its standard error, (K,).
        level: mean over runs and window of the other variable, (K,).
        level_error: its standard error, (K,).
        samples: slopes (runs, K) and levels (runs, K), to bootstrap.
    """

    middle: np.ndarray
    slope: np.ndarray
    slope_error: np.ndarray
    level: np.ndarray
    level_error: np.ndarray
    samples: tuple[np.ndarray, np.ndarray]


def local_slopes(
    clock: np.ndarray, value: np.ndarray, other: np.ndarray, edges: np.ndarray
) -> Slopes:
    """Slopes of a recorded value in windows of a clock, run by run.

    Args:
        clock: increasing clock of the records, (K,).
        value: the value of each run at each record, (runs, K).
        other: another variable, such as s², (runs, K).
        edges: window edges within the clock, increasing.
    """
    edges = np.asarray(edges, float)
    if edges[0] < clock[0] or edges[-1] > clock[-1] * (1 + 1e-9):
        raise InputError(
            "edges", edges.tolist(), f"go beyond the records, {clock[0]:g} … {clock[-1]:g}"
        )
    at = np.stack([np.interp(edges, clock, row) for row in value])
    slopes = np.diff(at, axis=1) / np.diff(edges)
    fine = np.linspace(edges[:-1], edges[1:], 33, axis=1)
    levels = np.stack(
        [np.interp(fine.ravel(), clock, row).reshape(fine.shape).mean(1) for row in other]
    )
    error = 1 / np.sqrt(len(value))
    return Slopes(
        (edges[1:] + edges[:-1]) / 2,
        slopes.mean(0),
        slopes.std(0, ddof=1) * error,
        levels.mean(0),
        levels.std(0, ddof=1) * error,
        (slopes, levels),
    )


def at_level(
    runs: xr.Dataset, variable: str, of: str, level: float, picks: np.ndarray
) -> np.ndarray:
    """A variable's mean over runs when the mean of another one first falls to a level, for each resampling of runs.

    Args:
        runs: runs that share their recorded steps.
        variable: what to read.
        of: what sets the time, such as ``"loss"``.
        level: its level.
        picks: resamplings as indices of runs, (R, runs).

    Returns:
        (R,), NaN where the level is not reached.
    """
    order = np.argsort(runs.seed.values)
    value, height = runs[variable].values[order], runs[of].values[order]
    clock = np.log1p(runs.step.values[0])
    found = np.full(len(picks), np.nan)
    for i, pick in enumerate(picks):
        lowest = np.minimum.accumulate(height[pick].mean(0))
        if lowest[0] > level >= lowest[-1]:
            k = int(np.argmax(lowest <= level))
            share = (lowest[k - 1] - level) / (lowest[k - 1] - lowest[k])
            when = clock[k - 1] + share * (clock[k] - clock[k - 1])
            found[i] = np.interp(when, clock, value[pick].mean(0))
    return found


def resamplings(number: int, size: int, seed: int = 0) -> np.ndarray:
    """Bootstrap picks of `size` runs, (number, size), the first of them all runs once."""
    picks = np.random.default_rng(seed).integers(0, size, (number, size))
    picks[0] = np.arange(size)
    return picks
