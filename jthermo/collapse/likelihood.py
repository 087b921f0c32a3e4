"""The unknown curve: cubic B-splines on a lattice in log τ with a roughness penalty, solved exactly for each
exponent.

For shifts s = log τ − log t the model of the mean values is m = A·B(x + s)·β + noise, noise ~ N(0, Ω): B are
the B-splines, A averages the points of a bin. β has the random-walk prior λ|D²β|², so it can be integrated
out and what is left is a function of the exponents alone (variable projection, with the log-determinant that
makes it a marginal likelihood):

    f(θ) = ½ [ m'Ω⁻¹m − b'M⁻¹b + log|M| − (q − 2) log λ ],   M = B'Ω⁻¹B + λ D'D,   b = B'Ω⁻¹m.

The log-determinant matters: without it curves that are pushed apart until they do not overlap fit perfectly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.linalg import solve_triangular

from jthermo.collapse import linalg

MAX_KNOTS = 90
MAX_STEPS = 25
MOST_HEIGHT = 0.3  # largest change of a log scale in one step


@dataclass(frozen=True)
class Means:
    """The averaged curves, all conditions one after the other, with the bins that make N numbers out of the
    points.

    Attributes:
        x: log t of every point plus the shifts that are known beforehand, (n,).
        log_time: log t of each bin, (N,).
        controls: the centred log controls of every point in the fitted directions, (n, P).
        starts: first point of each bin, (N,).
        mean: average over replicates and bin, (N,).
        condition: index of the condition of each bin, (N,).
        heights: centred log controls of each bin that scale the value, in the fitted directions, (N, R).
        log_height: log of the scale of the value that is known beforehand, (N,).
    """

    x: np.ndarray
    log_time: np.ndarray
    controls: np.ndarray
    starts: np.ndarray
    mean: np.ndarray
    condition: np.ndarray
    heights: np.ndarray
    log_height: np.ndarray

    def binned(self, rows: np.ndarray) -> np.ndarray:
        """Average rows given at the points over the bins."""
        if len(self.starts) == len(self.x):
            return rows
        counts = np.diff(np.r_[self.starts, len(self.x)])
        total = np.add.reduceat(rows, self.starts, axis=0)
        return total / counts.reshape(-1, *[1] * (rows.ndim - 1))

    def log_tau(self, theta: np.ndarray) -> np.ndarray:
        """Log τ of every point, (n,); θ holds the shifts first, then the heights."""
        return self.x + self.controls @ theta[: self.controls.shape[1]]

    def holding(self, position: int, value: float) -> Means:
        """The same with one component of θ held, the others move on."""
        shifts = self.controls.shape[1]
        if position < shifts:
            x = self.x + value * self.controls[:, position]
            return replace(self, x=x, controls=np.delete(self.controls, position, axis=1))
        column = position - shifts
        log_height = self.log_height + value * self.heights[:, column]
        return replace(self, log_height=log_height, heights=np.delete(self.heights, column, axis=1))

    def height(self, theta: np.ndarray) -> np.ndarray:
        """Scale of the value of every bin, (N,)."""
        return np.exp(self.log_height + self.heights @ theta[self.controls.shape[1] :])

    def basis(self, lattice: Lattice, theta: np.ndarray, span: tuple[int, int], *, slope: bool = False):
        """The splines (or their derivatives in log τ) behind each mean, (N, q)."""
        rows = self.binned(lattice.design(self.log_tau(theta), span, slope=slope))
        return rows * self.height(theta)[:, None]


def bspline(u: np.ndarray) -> np.ndarray:
    """Values of the four cubic B-splines that are alive at the fraction u of a lattice cell, (n, 4)."""
    v = 1 - u
    return np.stack([v**3, 3 * u**3 - 6 * u**2 + 4, 3 * v**3 - 6 * v**2 + 4, u**3], axis=-1) / 6


def bspline_slope(u: np.ndarray) -> np.ndarray:
    """Derivatives in u of :func:`bspline`, (n, 4)."""
    v = 1 - u
    return np.stack([-(v**2), 3 * u**2 - 4 * u, -3 * v**2 + 4 * v, u**2], axis=-1) / 2


@dataclass(frozen=True)
class Lattice:
    """Equally spaced knots anchored at 0: the basis moves smoothly when data are shifted over it."""

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


@dataclass(frozen=True)
class Whitener:
    """Ω⁻¹ᐟ² of the means: block diagonal over conditions, or one block where replicates are paired."""

    blocks: tuple[np.ndarray, ...]  # lower inverses: block @ block' inverse of Ω

    @classmethod
    def of(cls, covariances: list[np.ndarray]) -> Whitener:
        """From the blocks of Ω."""
        inverses = []
        for omega in covariances:
            chol = np.linalg.cholesky(omega)
            inverses.append(solve_triangular(chol, np.eye(len(omega)), lower=True))
        return cls(tuple(inverses))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Ω⁻¹ᐟ² rows."""
        return self._apply(self.blocks, rows)

    def transposed(self, rows: np.ndarray) -> np.ndarray:
        """(Ω⁻¹ᐟ²)' rows."""
        return self._apply(tuple(block.T for block in self.blocks), rows)

    @staticmethod
    def _apply(blocks: tuple[np.ndarray, ...], rows: np.ndarray) -> np.ndarray:
        edges = np.cumsum([0, *(len(block) for block in blocks)])
        return np.concatenate([b @ rows[i:j] for b, i, j in zip(blocks, edges[:-1], edges[1:], strict=True)])


@lru_cache(maxsize=64)
def penalty(number: int) -> np.ndarray:
    """D'D of the second differences, (q, q); shared, not to be written to."""
    differences = np.diff(np.eye(number), n=2, axis=0)
    return differences.T @ differences


@dataclass(frozen=True)
class Solution:
    """The curve at one value of θ, and what inference needs."""

    theta: np.ndarray
    moved: np.ndarray  # what θ adds to log t of every point and to the log scale of every bin
    objective: float
    span: tuple[int, int]
    beta: np.ndarray
    fitted: np.ndarray  # (N,) the curve, binned like the data
    whitened_basis: np.ndarray  # (N, q)
    factor: np.ndarray  # Cholesky factor of M


@dataclass(frozen=True)
class Model:
    """The profile objective of one data set under one noise covariance and one stiffness λ."""

    means: Means
    lattice: Lattice
    whiten: Whitener
    stiffness: float  # λ

    def objective(self, theta: np.ndarray) -> float:
        """f(θ), up to a constant that does not depend on θ."""
        basis, span = self._basis(theta)
        return self._score(basis, self.stiffness, span[1])[0]

    def _basis(self, theta: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        span = self.lattice.span(self.means.log_tau(theta))
        return self.means.basis(self.lattice, theta, span), span

    def _score(self, basis: np.ndarray, stiffness: float, number: int):
        white = self.whiten(basis)
        target = self.whiten(self.means.mean)
        return self._solve(white.T @ white, white.T @ target, target @ target, stiffness, number)

    @staticmethod
    def _solve(gram: np.ndarray, moment: np.ndarray, power: float, stiffness: float, number: int):
        # The 1e-13 only keeps the factorisation alive when the noise is zero: far below rounding of the data.
        normal = gram + stiffness * penalty(number)
        normal[np.diag_indices(number)] += 1e-13 * np.trace(gram) / number
        factor = linalg.factor(normal)
        beta = linalg.solve(factor, moment)
        log_det = 2 * np.log(np.diag(factor)).sum()
        value = 0.5 * (power - moment @ beta + log_det - (number - 2) * np.log(stiffness))
        return value, beta, factor

    def evidence(self, solution: Solution) -> float:
        """−log marginal likelihood up to a constant: f with ½ log|Ω|, to compare noises by."""
        return solution.objective - sum(float(np.log(np.diag(block)).sum()) for block in self.whiten.blocks)

    def with_best_stiffness(self, theta: np.ndarray) -> Model:
        """λ at its marginal maximum for this θ (golden section over fourteen decades)."""
        basis, span = self._basis(theta)
        white = self.whiten(basis)
        target = self.whiten(self.means.mean)
        gram, moment, power = white.T @ white, white.T @ target, target @ target
        unit = np.trace(gram) / span[1]

        def value(log_stiffness: float) -> float:
            return self._solve(gram, moment, power, unit * np.exp(log_stiffness), span[1])[0]

        grid = np.arange(-25.0, 12.1, 2.5)
        best = grid[int(np.argmin([value(point) for point in grid]))]
        for step in (1.25, 0.6, 0.3):
            best = min((best - step, best, best + step), key=value)
        return replace(self, stiffness=unit * np.exp(best))

    def solve(self, theta: np.ndarray) -> Solution:
        """The curve and its bookkeeping at θ."""
        basis, span = self._basis(theta)
        white = self.whiten(basis)
        target = self.whiten(self.means.mean)
        gram = white.T @ white
        value, beta, factor = self._solve(gram, white.T @ target, target @ target, self.stiffness, span[1])
        return Solution(
            theta=theta,
            moved=np.r_[
                self.means.log_tau(theta) - self.means.x, self.means.heights @ theta[self.num_shifts :]
            ],
            objective=value,
            span=span,
            beta=beta,
            fitted=basis @ beta,
            whitened_basis=white,
            factor=factor,
        )

    @property
    def num_shifts(self) -> int:
        """How many components of θ move log τ; the others scale the value."""
        return self.means.controls.shape[1]

    def pace(self, solution: Solution) -> np.ndarray:
        """∂(fitted)/∂ log τ of every bin, (N,)."""
        return self.means.basis(self.lattice, solution.theta, solution.span, slope=True) @ solution.beta

    def gradient(self, solution: Solution) -> np.ndarray:
        """∂(fitted)/∂θ at a fixed curve, (N, P): F'(log τ)·log c of the shifts, F·log c of the heights."""
        log_tau = self.means.log_tau(solution.theta)
        slope = self.lattice.design(log_tau, solution.span, slope=True) @ solution.beta
        shifts = self.means.binned(slope[:, None] * self.means.controls)
        shifts *= self.means.height(solution.theta)[:, None]
        return np.column_stack([shifts, self.means.heights * solution.fitted[:, None]])

    def slope(self, solution: Solution) -> np.ndarray:
        """∂f/∂θ, (P,): the misfit moved along the curve's slope, and the change of the log-determinant."""
        resid = self.whiten(self.means.mean) - solution.whitened_basis @ solution.beta
        inner = linalg.solve(solution.factor, solution.whitened_basis.T)
        pulled = self.whiten.transposed(inner.T)  # (N, q): Ω⁻¹ B M⁻¹
        force = self.whiten.transposed(resid)
        return np.array(
            [np.sum(pulled * move) - force @ (move @ solution.beta) for move in self._moves(solution)]
        )

    def _moves(self, solution: Solution) -> list[np.ndarray]:
        """∂B/∂θ of each component of θ, (N, q)."""
        means = self.means
        log_tau = means.log_tau(solution.theta)
        rate = self.lattice.design(log_tau, solution.span, slope=True)
        height = means.height(solution.theta)[:, None]
        moves = [means.binned(rate * column[:, None]) * height for column in means.controls.T]
        if len(means.heights.T):
            basis = means.basis(self.lattice, solution.theta, solution.span)
            moves += [basis * column[:, None] for column in means.heights.T]
        return moves

    def information(self, solution: Solution) -> tuple[np.ndarray, np.ndarray]:
        """Information on θ, (P, P), and the whitened gradient that the curve cannot follow, (N, P)."""
        white = self.whiten(self.gradient(solution))
        free = self.project_out_curve(solution, white)
        return white.T @ free, free

    def slope_noise(self, solution: Solution) -> np.ndarray:
        """What the sampling noise of the curve's slope adds to :meth:`information`, (P, P).

        The gradient is that of the fitted curve, ĝ = g + δ, so ĝ'Ω⁻¹Pĝ has the mean g'Ω⁻¹Pg + tr(Ω⁻¹P cov δ): the
        second term tells nothing of θ. cov δ is that of β̂ = M⁻¹B'Ω⁻¹m at the noise of m.
        """
        gram = solution.whitened_basis.T @ solution.whitened_basis
        half = linalg.solve(solution.factor, gram)
        sampling = linalg.solve(solution.factor, half.T)  # M⁻¹ G M⁻¹
        white = [self.whiten(move) for move in self._moves(solution)]
        free = [self.project_out_curve(solution, part) for part in white]
        return np.array([[np.sum((a.T @ b) * sampling) for b in free] for a in white])

    def minimise(self, start: Solution, bounds: np.ndarray, *, tolerance: float = 1e-6) -> Solution:
        """The nearest local minimum of f: Gauss–Newton with the exact slope, step halving and bounds that hold."""
        solution = start
        if not len(solution.theta):
            return solution
        for _ in range(MAX_STEPS):
            slope = self.slope(solution)
            hessian, _ = self.information(solution)
            ridge = 1e-9 * max(np.trace(hessian), 1e-12) * np.eye(len(slope))
            out = np.where(slope > 0, solution.theta <= bounds[:, 0], solution.theta >= bounds[:, 1])
            inside = np.flatnonzero(~out)  # the others would leave the bounds
            move = np.zeros(len(slope))
            move[inside] = -np.linalg.solve((hessian + ridge)[np.ix_(inside, inside)], slope[inside])
            last = -0.5 * slope @ move < tolerance  # what the step promises: nothing is left to halve it for
            shift = np.abs(self.means.controls @ move[: self.num_shifts]).max(initial=1e-300)
            height = np.abs(self.means.heights @ move[self.num_shifts :]).max(initial=1e-300)
            move *= min(1.0, 2 * self.lattice.spacing / shift, MOST_HEIGHT / height)
            scale = 1.0
            while scale > (0.5 if last else 1e-3):
                trial = self.solve(np.clip(solution.theta + scale * move, *bounds.T))
                if trial.objective < solution.objective:
                    break
                scale /= 2
            else:
                return solution
            gain = solution.objective - trial.objective
            solution = trial
            if last or gain < tolerance:
                return solution
        return solution

    def project_out_curve(self, solution: Solution, white: np.ndarray) -> np.ndarray:
        """What of whitened rows the curve cannot follow: (I − B M⁻¹ B') rows."""
        basis = solution.whitened_basis
        return white - basis @ linalg.solve(solution.factor, basis.T @ white)

    def curve(self, solution: Solution, log_tau: np.ndarray) -> np.ndarray:
        """F at any log τ inside the fitted range."""
        return self.lattice.design(log_tau, solution.span) @ solution.beta
