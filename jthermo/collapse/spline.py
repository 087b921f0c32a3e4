"""Cubic B-splines on a lattice in log τ, and the roughness penalty on their coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np


def bspline(u: np.ndarray) -> np.ndarray:
    """Values of the four cubic B-splines at the fraction u of a lattice cell, (n, 4)."""
    v = 1 - u
    return np.stack([v**3, 3 * u**3 - 6 * u**2 + 4, 3 * v**3 - 6 * v**2 + 4, u**3], axis=-1) / 6


def bspline_slope(u: np.ndarray) -> np.ndarray:
    """Derivatives in u of :func:`bspline`, (n, 4)."""
    v = 1 - u
    return np.stack([-(v**2), 3 * u**2 - 4 * u, -3 * v**2 + 4 * v, u**2], axis=-1) / 2


@dataclass(frozen=True)
class Lattice:
    """Equally spaced knots anchored at 0, so that the basis moves smoothly with shifted data."""

    spacing: float

    def span(self, log_tau: np.ndarray) -> tuple[int, int]:
        """First cell and number of splines that cover the points."""
        cells = np.floor(log_tau / self.spacing)
        return int(cells.min()), int(cells.max() - cells.min()) + 4

    def design(self, log_tau: np.ndarray, span: tuple[int, int], slope: bool = False) -> np.ndarray:
        """Matrix of the splines (or of their derivatives in log τ) at the points, (n, q)."""
        first, number = span
        scaled = log_tau / self.spacing
        cells = np.clip(np.floor(scaled), first, first + number - 4)
        weights = bspline_slope(scaled - cells) / self.spacing if slope else bspline(scaled - cells)
        matrix = np.zeros((len(log_tau), number))
        columns = (cells - first).astype(int)[:, None] + np.arange(4)
        np.put_along_axis(matrix, columns, weights, axis=1)
        return matrix


# Few entries, since each may have a million numbers.
@lru_cache(maxsize=16)
def penalty(number: int) -> np.ndarray:
    """D'D of the second differences D, (q, q). The array is shared: do not write to it."""
    difference, first = (1.0, -2.0, 1.0), np.arange(number - 2)
    matrix = np.zeros((number, number))
    for (i, a), (j, b) in product(enumerate(difference), repeat=2):
        matrix[first + i, first + j] += a * b
    return matrix
