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
class Span:
    """The splines that cover some points: (first cell, number of splines) of each branch."""

    branches: tuple[tuple[int, int], ...]

    @property
    def number(self) -> int:
        """Number of splines, q."""
        return sum(number for _, number in self.branches)

    @property
    def penalised(self) -> int:
        """Rank of the penalty: a straight line on each branch is free."""
        return self.number - 2 * len(self.branches)


@dataclass(frozen=True)
class Lattice:
    """Equally spaced knots anchored at 0, so that the basis moves smoothly with shifted data.

    Attributes:
        spacing: of the knots.
        broken: whether the curve has one branch below 0 and another above it, which share nothing.
    """

    spacing: float
    broken: bool = False

    def span(self, log_tau: np.ndarray) -> Span:
        """The splines that cover the points."""
        cells = np.floor(log_tau / self.spacing)
        parts = [cells[cells < 0], cells[cells >= 0]] if self.broken else [cells]
        return Span(tuple((int(c.min()), int(c.max() - c.min()) + 4) for c in parts if len(c)))

    def design(self, log_tau: np.ndarray, span: Span, slope: bool = False) -> np.ndarray:
        """Matrix of the splines (or of their derivatives in log τ) at the points, (n, q)."""
        scaled = log_tau / self.spacing
        # The branch of each point; one outside the span belongs to the nearest.
        first, number, before = self._branch(scaled, span)
        cells = np.clip(np.floor(scaled), first, first + number - 4)
        weights = bspline_slope(scaled - cells) / self.spacing if slope else bspline(scaled - cells)
        matrix = np.zeros((len(log_tau), span.number))
        columns = (cells - first + before).astype(int)[:, None] + np.arange(4)
        np.put_along_axis(matrix, columns, weights, axis=1)
        return matrix

    @staticmethod
    def _branch(scaled: np.ndarray, span: Span) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First cell, number of splines and splines before it, of the branch of each point."""
        numbers = np.array([number for _, number in span.branches])
        firsts = np.array([first for first, _ in span.branches])
        which = np.zeros(len(scaled), int) if len(firsts) == 1 else (scaled >= 0).astype(int)
        return firsts[which], numbers[which], (np.cumsum(numbers) - numbers)[which]


def penalty(span: Span) -> np.ndarray:
    """D'D of the second differences D on each branch, (q, q). It is shared: do not write to it."""
    return _penalty(tuple(number for _, number in span.branches))


# Few entries, since each may have a million numbers.
@lru_cache(maxsize=16)
def _penalty(numbers: tuple[int, ...]) -> np.ndarray:
    difference = (1.0, -2.0, 1.0)
    matrix = np.zeros((sum(numbers), sum(numbers)))
    ends = np.cumsum(numbers)
    first = np.concatenate(
        [np.arange(end - n, end - 2) for end, n in zip(ends, numbers, strict=True)]
    )
    for (i, a), (j, b) in product(enumerate(difference), repeat=2):
        matrix[first + i, first + j] += a * b
    return matrix
