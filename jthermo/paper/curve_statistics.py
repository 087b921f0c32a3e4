"""Local slopes of mean curves, and values where another variable has a given level."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jthermo.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


class Slopes(NamedTuple):
    """Mean slope of runs in each window of a clock, and the mean of another variable there.

    Attributes:
        middle: arithmetic middle of each window, (K,).
        slope: mean over runs of the change divided by the window's length, (K,).
        slope_error: its standard error, (K,).
        level: mean over runs and window of the other variable, (K,).
        level_error: its standard error, (K,).
        samples: slopes (runs, K) and levels (runs, K) of each run, for a bootstrap.
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
    """Slopes of a recorded value in windows of a clock, for each run.

    Args:
        clock: increasing clock of the records, (R,).
        value: the value of each run at each record, (runs, R).
        other: another variable, such as s², (runs, R).
        edges: increasing edges of the K windows, within the clock, (K + 1,).

    Raises:
        InputError: edges outside the clock of the records.

    >>> import numpy as np
    >>> clock = np.linspace(0, 2, 21)
    >>> value = np.stack([clock**2, 3 * clock**2])
    >>> local_slopes(clock, value, value, np.array([0, 1, 2])).slope.round(6)
    array([2., 6.])
    """
    edges = np.asarray(edges, float)
    if edges[0] < clock[0] or edges[-1] > clock[-1] * (1 + 1e-9):
        raise InputError(
            "edges",
            edges.tolist(),
            f"go beyond the records, which cover {clock[0]:g} to {clock[-1]:g}",
        )
    at_edges = np.stack([np.interp(edges, clock, row) for row in value])
    slopes = np.diff(at_edges, axis=1) / np.diff(edges)
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
    """A variable's mean over runs at the time when the mean of another one first falls to a level.

    Times between records are interpolated linearly in log(1 + t).

    Args:
        runs: results whose runs share their recorded steps.
        variable: the variable to read.
        of: the variable that sets the time, such as ``"loss"``.
        level: the level of `of`.
        picks: resamplings as indices of runs in the order of their seeds, (R, runs).

    Returns:
        The mean of `variable` for each resampling, (R,); NaN if the level is not reached.
    """
    order = np.argsort(runs.seed.values)
    value, height = runs[variable].values[order], runs[of].values[order]
    clock = np.log1p(runs.step.values[0])
    values = np.full(len(picks), np.nan)
    for i, pick in enumerate(picks):
        lowest = np.minimum.accumulate(height[pick].mean(0))
        if lowest[0] > level >= lowest[-1]:
            k = int(np.argmax(lowest <= level))
            share = (lowest[k - 1] - level) / (lowest[k - 1] - lowest[k])
            when = clock[k - 1] + share * (clock[k] - clock[k - 1])
            values[i] = np.interp(when, clock, value[pick].mean(0))
    return values


def resamplings(number: int, size: int, seed: int = 0) -> np.ndarray:
    """Indices of `number` bootstrap samples of `size` runs, (number, size).

    The first sample holds every run once.

    >>> resamplings(2, 3)[0].tolist()
    [0, 1, 2]
    """
    picks = np.random.default_rng(seed).integers(0, size, (number, size))
    picks[0] = np.arange(size)
    return picks
