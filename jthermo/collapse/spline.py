"""Cubic B-splines on a lattice in log τ, and the roughness penalty on their coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
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

    @cached_property
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

    def splines(
        self, log_tau: np.ndarray, span: Span, slope: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The splines that are not 0 at each point, (n, 4), and their values there, (n, 4).

        With `slope`, their derivatives in log τ instead of their values.
        """
        scaled = log_tau / self.spacing
        # The branch of each point; one outside the span belongs to the nearest.
        first, number, before = self._branch(scaled, span)
        cells = np.clip(np.floor(scaled), first, first + number - 4)
        values = bspline_slope(scaled - cells) / self.spacing if slope else bspline(scaled - cells)
        return (cells - first + before).astype(int)[:, None] + np.arange(4), values

    def design(self, log_tau: np.ndarray, span: Span, slope: bool = False) -> np.ndarray:
        """Matrix of the splines (or of their derivatives in log τ) at the points, (n, q)."""
        columns, values = self.splines(log_tau, span, slope)
        return spread(np.arange(len(log_tau)), columns, values, (len(log_tau), span.number))

    @staticmethod
    def _branch(
        scaled: np.ndarray, span: Span
    ) -> tuple[np.ndarray | int, np.ndarray | int, np.ndarray | int]:
        """First cell, number of splines and splines before it, of the branch of each point."""
        if len(span.branches) == 1:
            return *span.branches[0], 0
        firsts, numbers = np.array(span.branches).T
        which = (scaled >= 0).astype(int)
        return firsts[which], numbers[which], (np.cumsum(numbers) - numbers)[which]


def spread(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """The matrix of this shape with the values of each point, (n, 4), added in its row and columns.

    >>> spread(np.array([0, 0]), np.array([[0, 1], [1, 2]]), np.ones((2, 2)), (2, 3)).tolist()
    [[1.0, 2.0, 1.0], [0.0, 0.0, 0.0]]
    """
    places = rows[:, None] * shape[1] + columns
    size = shape[0] * shape[1]
    return np.bincount(places.ravel(), values.ravel(), minlength=size).reshape(shape)


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
