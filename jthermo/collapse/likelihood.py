"""The likelihood of the exponents, with the unknown curve integrated out.

For shifts s = log τ − log t the model of the mean values is m = A·B(x + s)·β + noise ~ N(0, Ω).
Here B holds the B-splines, and A averages the points of a bin. β has the random-walk prior λ|D²β|²,
so it can be integrated out. What is left depends on the exponents alone (variable projection, with
the log-determinant that makes it a marginal likelihood):

    f(θ) = ½ [ m'Ω⁻¹m − b'M⁻¹b + log|M| − (q − 2) log λ ],   M = B'Ω⁻¹B + λ D'D,   b = B'Ω⁻¹m.

Other forms of the law replace m by the weighted ordinates, and weight the rows of B
(jthermo/collapse/means.py).

The log-determinant matters: without it, curves that are shifted until they no longer overlap fit
perfectly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from jthermo.collapse import linalg
from jthermo.collapse.means import Means
from jthermo.collapse.settings import Settings
from jthermo.collapse.spline import Lattice, Span, penalty
from jthermo.errors import InputError


@dataclass(frozen=True)
class Whitener:
    """Ω⁻¹ᐟ² of the means: block diagonal over conditions, or one block if replicates are paired.

    Attributes:
        blocks: inverses of the lower Cholesky factors of the blocks of Ω.
    """

    blocks: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, covariances: list[np.ndarray]) -> Whitener:
        """From the blocks of Ω."""
        inverses = []
        for omega in covariances:
            chol = linalg.cholesky(omega)
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
        if len(blocks) == 1:
            return blocks[0] @ rows
        edges = np.cumsum([0, *(len(block) for block in blocks)])
        return np.concatenate(
            [b @ rows[i:j] for b, i, j in zip(blocks, edges[:-1], edges[1:], strict=True)]
        )


@dataclass(frozen=True)
class Solution:
    """The curve at one value of θ.

    Attributes:
        theta: exponents in the fitted directions, (P,).
        moved: what θ adds to the place of every point and to the log scale of every bin, (n + N,).
        objective: f(θ).
        span: the splines used.
        beta: coefficients of the splines, (q,).
        fitted: the curve, binned like the data, (N,).
        whitened_basis: Ω⁻¹ᐟ²B, (N, q).
        factor: Cholesky factor of M, (q, q).
    """

    theta: np.ndarray
    moved: np.ndarray
    objective: float
    span: Span
    beta: np.ndarray
    fitted: np.ndarray
    whitened_basis: np.ndarray
    factor: np.ndarray


class _System(NamedTuple):
    """The equations for the curve at one θ, which are the same for every stiffness.

    Attributes:
        theta: exponents in the fitted directions, (P,).
        basis: B, (N, q).
        span: the splines used.
        target: m, or the weighted ordinates, (N,).
        white: Ω⁻¹ᐟ²B, (N, q).
        gram: B'Ω⁻¹B, (q, q).
        moment: b, (q,).
        square: m'Ω⁻¹m.
    """

    theta: np.ndarray
    basis: np.ndarray
    span: Span
    target: np.ndarray
    white: np.ndarray
    gram: np.ndarray
    moment: np.ndarray
    square: float

    def solved(self, stiffness: float) -> tuple[float, np.ndarray, np.ndarray]:
        """f(θ), the coefficients of the splines and the Cholesky factor of M."""
        number = self.span.number
        # The 1e-13 keeps the factorisation possible if the noise is zero. It is far below rounding.
        normal = self.gram + stiffness * penalty(self.span)
        normal.flat[:: number + 1] += 1e-13 * self.gram.trace() / number
        factor = linalg.factor(normal)
        beta = linalg.solve(factor, self.moment)
        log_det = 2 * np.log(factor.diagonal()).sum()
        rank = self.span.penalised
        value = self.square - self.moment @ beta + log_det - rank * np.log(stiffness)
        return 0.5 * value, beta, factor


@dataclass(frozen=True)
class CurveLikelihood:
    """The objective f(θ) of one data set under one noise covariance and one stiffness.

    Attributes:
        means: the averaged curves.
        lattice: knots of the curve.
        whiten: Ω⁻¹ᐟ².
        stiffness: λ.
        settings: the constants of the fit.
    """

    means: Means
    lattice: Lattice
    whiten: Whitener
    stiffness: float
    settings: Settings

    def objective(self, theta: np.ndarray) -> float:
        """f(θ), up to a constant that does not depend on θ."""
        return self.solve(theta).objective

    def _basis(self, theta: np.ndarray) -> tuple[np.ndarray, Span]:
        log_tau = self.means.log_tau(theta)
        # Checked before anything of that size is allocated.
        if not np.ptp(log_tau) < 2 * self.settings.max_knots * self.lattice.spacing:
            remedy = "shifts the curves too far apart; give finite exponents nearer to the fitted"
            raise InputError("exponents", theta.tolist(), remedy)
        span = self.lattice.span(log_tau)
        return self.means.basis(self.lattice, theta, span), span

    def _system(self, theta: np.ndarray) -> _System:
        basis, span = self._basis(theta)
        target = self.means.target(theta)
        white, of_target = self.whiten(basis), self.whiten(target)
        gram, moment, square = white.T @ white, white.T @ of_target, of_target @ of_target
        return _System(theta, basis, span, target, white, gram, moment, square)

    def evidence(self, solution: Solution) -> float:
        """−log marginal likelihood up to a constant: f + ½ log|Ω|. It compares covariances."""
        return solution.objective - sum(
            float(np.log(np.diag(block)).sum()) for block in self.whiten.blocks
        )

    def with_best_stiffness(self, theta: np.ndarray) -> tuple[CurveLikelihood, Solution]:
        """The same with the most likely λ at this θ, and the curve there.

        λ is found by a scan, then by steps that get smaller.
        """
        system = self._system(theta)
        unit = system.gram.trace() / system.span.number

        def value(log_stiffness: float) -> float:
            return system.solved(unit * np.exp(log_stiffness))[0]

        grid = np.arange(*self.settings.stiffness_scan)
        best = grid[int(np.argmin([value(point) for point in grid]))]
        for step in self.settings.stiffness_steps:
            best = min((best - step, best, best + step), key=value)
        likelihood = replace(self, stiffness=unit * np.exp(best))
        return likelihood, likelihood._solution(system)

    def solve(self, theta: np.ndarray) -> Solution:
        """The curve at θ."""
        return self._solution(self._system(theta))

    def _solution(self, system: _System) -> Solution:
        theta = system.theta
        value, beta, factor = system.solved(self.stiffness)
        return Solution(
            theta=theta,
            moved=np.r_[
                self.means.log_tau(theta) - self.means.x,
                self.means.log_scale(theta) - self.means.log_height,
            ],
            objective=value,
            span=system.span,
            beta=beta,
            fitted=system.basis @ beta + (self.means.mean - system.target),
            whitened_basis=system.white,
            factor=factor,
        )

    @property
    def num_shifts(self) -> int:
        """Number of components of θ that shift log τ."""
        return self.means.num_shifts

    def residual(self, solution: Solution) -> np.ndarray:
        """Ω⁻¹ᐟ² (means − fitted), (N,)."""
        return self.whiten(self.means.mean - solution.fitted)

    def pace(self, solution: Solution) -> np.ndarray:
        """∂(fitted)/∂ log τ of every bin, (N,)."""
        return self.means.pace(self.lattice, solution.theta, solution.span, solution.beta)

    def gradient(self, solution: Solution) -> np.ndarray:
        """Derivative of the N fitted averages with respect to the P exponents, (N, P).

        The curve F is held fixed. An exponent of the time gives F'·log c, with c its control; an
        exponent of the value gives F·log c.
        """
        return self.means.gradient(
            self.lattice, solution.theta, solution.span, solution.beta, solution.fitted
        )

    def slope(self, solution: Solution) -> np.ndarray:
        """∂f/∂θ, (P,): misfit along the curve's slope, and change of the log-determinant."""
        resid = self.residual(solution)
        inner = linalg.solve(solution.factor, solution.whitened_basis.T)
        # Ω⁻¹ B M⁻¹, (N, q)
        pulled = self.whiten.transposed(inner.T)
        force = self.whiten.transposed(resid)
        return np.array(
            [
                np.sum(pulled * move) - force @ (move @ solution.beta - change)
                for move, change in self._moves(solution)
            ]
        )

    def _moves(self, solution: Solution) -> list[tuple[np.ndarray, np.ndarray | float]]:
        """∂(basis)/∂θ and ∂(target)/∂θ for each component of θ."""
        return self.means.moves(self.lattice, solution.theta, solution.span)

    def information(self, solution: Solution) -> tuple[np.ndarray, np.ndarray]:
        """Information on θ, and the part of the whitened gradient that the curve cannot follow."""
        white = self.whiten(self.gradient(solution))
        free = self.project_out_curve(solution, white)
        return white.T @ free, free

    def slope_noise(self, solution: Solution) -> np.ndarray:
        """What noise in the curve's fitted slope adds to :meth:`information` on average, (P, P).

        The gradient is that of the fitted curve, ĝ = g + δ, so ĝ'Ω⁻¹Pĝ has the mean
        g'Ω⁻¹Pg + tr(Ω⁻¹P cov δ). The second term says nothing about θ. cov δ follows from
        β̂ = M⁻¹B'Ω⁻¹m and the noise of m.
        """
        gram = solution.whitened_basis.T @ solution.whitened_basis
        half = linalg.solve(solution.factor, gram)
        # M⁻¹ G M⁻¹
        sampling = linalg.solve(solution.factor, half.T)
        white = [self.whiten(move) for move, _ in self._moves(solution)]
        free = [self.project_out_curve(solution, part) for part in white]
        return np.array([[np.sum((a.T @ b) * sampling) for b in free] for a in white])

    def minimise(
        self, start: Solution, bounds: np.ndarray, *, tolerance: float | None = None
    ) -> Solution:
        """The nearest local minimum of f: Gauss–Newton steps with the exact slope, within bounds.

        Args:
            start: where to begin.
            bounds: of θ, (P, 2).
            tolerance: gain in f at which it stops; `settings.tolerance` if None.
        """
        settings, solution = self.settings, start
        tolerance = settings.tolerance if tolerance is None else tolerance
        if not len(solution.theta):
            return solution
        for _ in range(settings.max_newton_steps):
            slope = self.slope(solution)
            move = self._newton_step(solution, slope, bounds)
            # If the step promises less than the tolerance, it is the last one.
            last = -0.5 * slope @ move < tolerance
            move *= self._damping(solution, move)
            least = settings.min_last_step_fraction if last else settings.min_step_fraction
            trial = self._descend(solution, move, bounds, least)
            if trial is None:
                return solution
            gain = solution.objective - trial.objective
            solution = trial
            if last or gain < tolerance:
                return solution
        return solution

    def _newton_step(self, solution: Solution, slope: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """The step to the minimum of the parabola, without what would leave the bounds."""
        hessian, _ = self.information(solution)
        ridge = 1e-9 * max(np.trace(hessian), 1e-12) * np.eye(len(slope))
        low, high = bounds.T
        leaving = np.where(slope > 0, solution.theta <= low, solution.theta >= high)
        inside = np.flatnonzero(~leaving)
        move = np.zeros(len(slope))
        move[inside] = -np.linalg.solve((hessian + ridge)[np.ix_(inside, inside)], slope[inside])
        return move

    def _damping(self, solution: Solution, move: np.ndarray) -> float:
        """Factor ≤ 1 that keeps the step within the range of the linearisation."""
        means = self.means
        places = means.place_moves(solution.theta) @ move[means.movers]
        shift = np.abs(places).max(initial=1e-300)
        first, number = means.num_shifts, means.num_heights
        height = np.abs(means.heights @ move[first : first + number]).max(initial=1e-300)
        longest = self.settings.max_shift_step * self.lattice.spacing
        return min(1.0, longest / shift, self.settings.max_height_step / height)

    def _descend(
        self, solution: Solution, move: np.ndarray, bounds: np.ndarray, least: float
    ) -> Solution | None:
        """The first of step, step/2, step/4, … that lowers f; None below the fraction `least`."""
        scale = 1.0
        while scale > least:
            trial = self.solve(np.clip(solution.theta + scale * move, *bounds.T))
            if trial.objective < solution.objective:
                return trial
            scale /= 2
        return None

    def project_out_curve(self, solution: Solution, white: np.ndarray) -> np.ndarray:
        """The part of whitened rows that the curve cannot follow: (I − B M⁻¹ B') rows."""
        basis = solution.whitened_basis
        return white - basis @ linalg.solve(solution.factor, basis.T @ white)

    def curve(self, solution: Solution, log_tau: np.ndarray) -> np.ndarray:
        """F at any log τ inside the fitted range, (n,)."""
        return self.lattice.design(log_tau, solution.span) @ solution.beta
